"""Image files of every format, mode, depth, orientation and metadata that Pillow writes, read as Pillow reads them."""

import io
import random
import warnings
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from gmar_hf.errors import ImageError
from gmar_hf.images.image_file import read_file
from gmar_hf.images.reading import read_image

MODES = (
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16",
    "I;16B", "I;16L",
)  # fmt: skip
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
)

# Formats, and of each further arguments of its writer with values to draw from; what no mode can have is left out.
FORMATS = {
    "PNG": {
        "transparency": [0, 3, (0, 0, 0), bytes(range(256)), 40_000], "gamma": [0.45455, 1.0], "dpi": [(72, 300)],
        "icc_profile": [b"no profile", b""], "compress_level": [0, 9], "bits": [1, 2, 4, 8], "save_all": [True],
    },
    "TIFF": {
        "compression": ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "group3", "group4", "jpeg"],
        "tiffinfo": [{262: 0}, {262: 1}, {266: 2}, {270: "text"}, {305: "Ü"}], "icc_profile": [b"no profile"],
        "dpi": [(1, 1)], "save_all": [True], "big_tiff": [True], "strip_size": [16],
    },
    "GIF": {
        "transparency": [0, 3, 255], "interlace": [0, 1], "comment": [b"text", b"\xff" * 300], "save_all": [True],
        "loop": [0], "background": [1], "optimize": [True],
    },
    "BMP": {"dpi": [(10, 10)]},
    "DIB": {},
    "WEBP": {
        "lossless": [True, False], "quality": [1, 100], "exact": [True], "icc_profile": [b"no profile"],
        "save_all": [True],
    },
    "JPEG": {
        "quality": [1, 50, 100], "subsampling": ["4:4:4", "4:2:0"], "progressive": [True], "dpi": [(72, 72)],
        "icc_profile": [b"no profile"], "comment": [b"text", b"\xff\xfe"], "optimize": [True], "keep_rgb": [True],
    },
    "MPO": {"save_all": [True], "quality": [90]},
    "JPEG2000": {"irreversible": [True], "no_jp2": [True], "num_resolutions": [1, 2]},
    # Not `save_all`: of several frames that are to be turned, Pillow 13's encoder ends the process.
    "AVIF": {"quality": [20, 100], "speed": [10], "subsampling": ["4:4:4", "4:0:0"]},
    "PPM": {},
    "ICO": {"sizes": [[(16, 16)], [(8, 8), (16, 16)]], "bitmap_format": ["bmp", "png"]},
    "ICNS": {},
    "TGA": {"compression": [None, "tga_rle"], "orientation": [1, -1], "id_section": [b"text"]},
    "DDS": {"pixel_format": ["DXT1", "DXT3", "DXT5", "BC2", "BC3"]},
    "IM": {}, "MSP": {}, "PCX": {"dpi": [(5, 5)]}, "QOI": {"colorspace": ["sRGB"]}, "SGI": {"bpc": [1, 2]},
    "SPIDER": {}, "XBM": {"hotspot": [(1, 1)]}, "BLP": {"blp_version": ["BLP1", "BLP2"]},
}  # fmt: skip
WITH_EXIF = {"PNG", "TIFF", "WEBP", "JPEG", "MPO", "AVIF"}
WITH_XMP = {"JPEG", "MPO", "WEBP", "AVIF"}


def picture(mode, size, numbers):
    """A picture of noise in which every number of the mode occurs; of deep modes also small numbers only."""
    width, height = size
    if mode in ("I", "F") or mode.startswith("I;16"):
        largest = numbers.choice([255, 4095, 65535, 1])
        values = np.array([numbers.randint(0, largest) for _ in range(width * height)]).reshape(height, width)
        dtype = {"I": np.int32, "F": np.float32, "I;16B": ">u2"}.get(mode, "<u2")
        image = Image.fromarray(values.astype(dtype))
        return image if mode != "I;16L" else Image.frombytes("I;16L", size, values.astype("<u2").tobytes())
    rgba = np.frombuffer(numbers.randbytes(width * height * 4), dtype=np.uint8).reshape(height, width, 4)
    image = Image.fromarray(rgba)
    if mode in ("LA", "La", "PA"):
        return image.convert("LA").convert(mode)
    return image.convert(mode) if mode in ("RGBA", "RGBa") else image.convert("RGB").convert(mode)


def odd_file(numbers):
    """Draw a file that Pillow can write: its description, and its bytes."""
    while True:
        format, mode = numbers.choice(list(FORMATS)), numbers.choice(MODES)
        size = numbers.choice([(1, 1), (1, 9), (17, 5), (16, 16), (24, 32), (33, 8)])
        options = {name: numbers.choice(values) for name, values in FORMATS[format].items() if numbers.random() < 0.3}
        orientation = numbers.choice([None, 0, *range(1, 10)])
        if orientation is not None and format in WITH_XMP and numbers.random() < 0.2:
            options["xmp"] = (XMP % orientation).encode()
        elif orientation is not None and format in WITH_EXIF:
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = orientation
        image = picture(mode, size, numbers)
        if options.get("save_all"):
            options["append_images"] = [picture(mode, size, numbers)]
        file = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image.save(file, format, **options)
        except Exception:  # no such mode in the format, or no such option of the mode: `save` says it in any way
            continue
        return f"{format} of {mode} {size}, {options}", file.getvalue()


def expected(content):
    """What Pillow makes of a file, and why ours is another picture, if it is to be one.

    Returns:
        A pair of the expected pixels, None where the file is to be refused, and the reason.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(content)) as image:
            upright = ImageOps.exif_transpose(image)
            tags = getattr(image, "tag_v2", {})
            is_deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
            if is_deep:
                # Pillow clips numbers above 255 to white. Nothing in the file tells of fewer than 16 bits.
                values = np.asarray(upright).astype(np.float64)
                values = 65535 - values if tags.get(262) == 0 else values
                grey = np.floor(values / 257 + 0.5).astype(np.uint8)
                return np.stack([grey] * 3, axis=-1), "deep grey is rescaled"
            if image.mode in ("I", "F"):
                low, high = np.asarray(image).min(), np.asarray(image).max()
                if low < 0 or 0 < high <= 1 or high > 255:
                    return None, "grey of unknown depth is refused"
            pixels = np.asarray(upright.convert("RGB"))
            if image.format == "TIFF" and tags.get(262) == 0 and image.mode not in ("1", "L", "P"):
                return 255 - pixels, "white at zero"
            return pixels, "none"


def check_files(seed, number, tmp_path):
    """Read so many odd files in every way; gives how many of each format, and of each exception, there were."""
    numbers, met = random.Random(seed), Counter()
    path = tmp_path / "odd"
    for _ in range(number):
        description, content = odd_file(numbers)
        try:
            pixels, reason = expected(content)
        except Exception as error:  # this Pillow writes what it does not read
            pixels, reason = None, f"Pillow cannot read it: {type(error).__name__}"
        path.write_bytes(content)
        met.update([description.split()[0], reason])
        for read in (lambda: read_image(path), lambda: read_file(path, "odd")):
            if pixels is None:
                with pytest.raises(ImageError):
                    read()
                continue
            image = read()
            assert (image.mode, image.info, dict(image.getexif())) == ("RGB", {}, {}), description
            np.testing.assert_array_equal(np.asarray(image), pixels, err_msg=description)
    return met


def test_some_files(tmp_path):
    check_files(0, 60, tmp_path)


@pytest.mark.campaign
def test_many_files(tmp_path, record_property):
    met = check_files(1, 1000, tmp_path)
    record_property("met", dict(met))
    available = {name for name in FORMATS if features.check({"WEBP": "webp", "AVIF": "avif"}.get(name, "jpg"))}
    assert not available - met.keys() - {"JPEG2000"}
