"""Every mode, every source and every bad input that `read_image` may meet."""

import base64
import io
import re
import socket
import struct
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageSequence
from torch.utils.data import TensorDataset
from transformers.image_utils import load_image

from gmar_hf.errors import ArgumentTypeError, ImageError
from gmar_hf.images.image_file import read_file
from gmar_hf.images.mask_reading import mask_of_file, mask_of_image
from gmar_hf.images.reading import read_image
from tests.helpers import loopback

SIZE = (23, 17)  # (width, height)
ORIENTATION = 0x0112  # the EXIF tag


def picture(mode="RGB"):
    """A picture of smooth colours; where the mode has transparency, of all degrees."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    rgba = np.stack([x * 11, y * 15, (x + y) * 6, 255 - x * 11], axis=-1).astype(np.uint8)
    image = Image.fromarray(rgba)
    if mode in ("RGBA", "RGBa"):
        return image.convert(mode)
    return image.convert("LA").convert(mode) if mode in ("LA", "PA") else image.convert("RGB").convert(mode)


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(image):
    return np.asarray(image)


PNG = encode(picture())
JPEG = encode(picture().resize((300, 200)), "JPEG")


@pytest.fixture
def file(tmp_path):
    def write(data):
        path = tmp_path / "picture.png"
        path.write_bytes(data)
        return path

    return write


# What is read


@pytest.mark.parametrize(
    "mode", ["RGB", "RGBA", "RGBa", "RGBX", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr", "LAB", "HSV"]
)
def test_every_mode_is_read_as_transformers_reads_it(mode):
    image = picture(mode)
    before = image.tobytes()
    read = read_image(image)
    assert read.mode == "RGB"
    assert read.size == SIZE
    assert read.tobytes() == load_image(image).tobytes() == image.convert("RGB").tobytes()
    assert read is not image
    assert image.tobytes() == before


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGB", "PNG"), ("RGBA", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("1", "PNG"), ("RGB", "JPEG"),
        ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "GIF"), ("RGB", "BMP"), ("RGB", "TIFF"), ("CMYK", "TIFF"),
        ("RGB", "PPM"),
    ],
)  # fmt: skip
def test_every_format_is_read_as_transformers_reads_it(mode, format, tmp_path):
    path = tmp_path / "picture"  # Pillow looks at the content, not at the name
    path.write_bytes(encode(picture(mode), format))
    read = read_image(path)
    assert (read.mode, read.size) == ("RGB", SIZE)
    with Image.open(path) as image:  # given the path, load_image leaves a GIF open
        assert read.tobytes() == read_image(str(path)).tobytes() == load_image(image).tobytes()


def test_palette_with_transparency_in_bytes_gives_no_warning():
    image = Image.open(io.BytesIO(encode(picture("P"), transparency=bytes(range(256)))))
    with pytest.warns(UserWarning, match="Palette images with Transparency"):
        expected = load_image(image.copy())
    assert read_image(image).tobytes() == expected.tobytes()  # any warning is an error here


def test_corrupt_exif_gives_no_warning(file):
    data = encode(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\xff\xff\xff\xff")
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        Image.open(io.BytesIO(data)).close()
    assert read_image(file(data)).size == SIZE


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation(orientation, format, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "turned"
    path.write_bytes(encode(picture("L" if (format, orientation) == ("JPEG", 8) else "RGB"), format, exif=exif))
    read = read_image(path)
    assert read.size == (SIZE if orientation < 5 else SIZE[::-1])
    assert read.tobytes() == load_image(str(path)).tobytes()
    assert read_image(read).tobytes() == read.tobytes()  # the tag is gone with the turn


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16", "RGB"])
def test_an_uncompressed_tiff_is_turned_wherever_it_lies(mode, tmp_path):
    """Pillow maps such files into memory when it opens them by their path, and forgets to turn some."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned clockwise
    left_to_right = Image.fromarray(np.repeat(np.arange(0, 240, 40, dtype=np.uint8)[None], 3, axis=0))
    image = Image.fromarray(np.asarray(left_to_right).astype(np.uint16) * 257) if mode == "I;16" else left_to_right
    path = tmp_path / "turned.tif"
    image.convert(mode).save(path, exif=exif)
    read = pixels(read_image(path))
    assert read.shape == (6, 3, 3)
    np.testing.assert_array_equal(np.abs(np.diff(read[:, 0, 0].astype(int))), 40)
    np.testing.assert_array_equal(read[:, :1].repeat(3, axis=1), read)


@pytest.mark.parametrize("format", ["GIF", "TIFF", "PNG"])
def test_first_of_several_frames(format, tmp_path):
    frames = [Image.new("RGB", SIZE, color) for color in ("red", "green", "blue")]
    path = tmp_path / "frames"
    path.write_bytes(encode(frames[0], format, save_all=True, append_images=frames[1:]))
    with Image.open(path) as image:
        assert len(list(ImageSequence.Iterator(image))) == 3
        assert read_image(path).tobytes() == frames[0].tobytes()
        image.seek(2)
        assert read_image(image).tobytes() == frames[2].tobytes()  # of a PIL image, the frame it is at
        assert image.tell() == 2


def test_pil_image_that_is_still_a_file_stays_usable(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    with Image.open(path) as image:
        assert read_image(image).tobytes() == read_image(image).tobytes() == picture().tobytes()


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "data:application/octet-stream;base64,"])
@pytest.mark.parametrize("encoded", [base64.b64encode(PNG).decode(), base64.encodebytes(PNG).decode()])
def test_base64(prefix, encoded):
    assert read_image(prefix + encoded).tobytes() == picture().tobytes()


# Deep grey images

DEEP = np.linspace(0, 65535, SIZE[0] * SIZE[1]).round().astype(np.uint16).reshape(SIZE[::-1])


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_16_bit_grey_is_divided_by_257(dtype):
    image = Image.fromarray(DEEP.astype(dtype))
    assert image.mode.startswith("I;16")
    assert len(np.unique(pixels(image.convert("RGB")))) < 257 < len(np.unique(DEEP))  # Pillow's own clips
    read = read_image(image)
    assert read.mode == "RGB"
    for channel in range(3):
        np.testing.assert_array_equal(pixels(read)[:, :, channel], np.rint(DEEP / 257))


def test_16_bit_grey_made_of_8_bits_is_read_as_the_8_bits():
    grey = pixels(picture("L"))
    assert read_image(Image.fromarray(grey.astype(np.uint16) * 257)).tobytes() == picture("L").convert("RGB").tobytes()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_files(format, tmp_path):
    path = tmp_path / "deep"
    path.write_bytes(encode(Image.fromarray(DEEP), format))
    np.testing.assert_array_equal(pixels(read_image(path))[:, :, 0], np.rint(DEEP / 257))


def test_16_bit_grey_in_an_icon(file):
    """An icon of macOS holds PNGs, and tells another mode until one is decoded."""
    path = file(encode(Image.fromarray(np.full((16, 16), 128 * 257, dtype=np.uint16)), "ICNS"))
    assert read_image(path).getextrema() == ((128, 128),) * 3


def test_16_bit_grey_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = tmp_path / "deep.png"
    Image.fromarray(DEEP).save(path, exif=exif)
    np.testing.assert_array_equal(pixels(read_image(path))[:, :, 0], np.rot90(np.rint(DEEP / 257), -1))


def test_16_bit_png_in_mode_i():
    image = Image.fromarray(DEEP.astype(np.int32))
    image.format = "PNG"  # as older Pillow opens it
    np.testing.assert_array_equal(pixels(read_image(image))[:, :, 0], np.rint(DEEP / 257))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("top", [255, 100, 2, 0])
def test_numbers_of_unknown_depth_up_to_255_are_read_as_transformers_reads_them(dtype, top):
    image = Image.fromarray(np.linspace(0, top, 391).reshape(17, 23).astype(dtype))
    assert image.mode in ("I", "F")
    assert read_image(image).tobytes() == load_image(image).tobytes()


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (np.int32, 0, 65535), (np.int32, 0, 256), (np.int32, -1, 255), (np.int32, 0, 1),
        (np.float32, 0, 1), (np.float32, 0, 255.5), (np.float32, -0.5, 255), (np.float32, 0, np.inf),
    ],
)  # fmt: skip
def test_numbers_of_unknown_depth_are_refused_elsewhere(dtype, low, high):
    image = Image.fromarray(np.array([[low, high], [low, high]], dtype=dtype))
    with pytest.raises(ImageError) as caught:
        read_image(image)
    assert str(caught.value) == (
        f"`image` of mode {image.mode} must hold numbers from 0 to 255, not all within 0 to 1 (its depth is not "
        f"known); got a PIL image with {low:g} to {high:g}. Scale it to 0 to 255 and convert it to mode L."
    )


def test_nan_is_refused():
    with pytest.raises(ImageError, match="got a PIL image with nan to nan"):
        read_image(Image.fromarray(np.array([[0, 255], [np.nan, 3]], dtype=np.float32)))


def test_deep_tiff_of_unknown_depth_is_refused_by_name(tmp_path):
    path = tmp_path / "deep.tiff"
    Image.fromarray(DEEP.astype(np.int32)).save(path)
    with pytest.raises(ImageError, match=rf"^`image` of mode I must .*got '{path}' with 0 to 65535"):
        read_image(path)


def tiff(bits, photometric, values):
    """A TIFF (height, width) of one grey channel, written by hand: Pillow writes neither 12 bits nor white at zero."""
    height, width = values.shape
    if bits == 12:  # two numbers in three bytes
        first, second = values[:, ::2].astype(np.uint16), values[:, 1::2].astype(np.uint16)
        data = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8).tobytes()
    else:
        data = values.astype({8: "u1", 16: "<u2"}[bits]).tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (279, len(data))]]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory


@pytest.mark.parametrize(
    ("bits", "photometric", "mode"), [(8, 1, "L"), (8, 0, "L"), (12, 1, "I;16"), (16, 1, "I;16"), (16, 0, "I;16")]
)
def test_depth_and_polarity_of_a_tiff_count(file, bits, photometric, mode):
    """Black is black and white is white, whatever numbers the file has for them, in a picture and in a mask."""
    largest = 2**bits - 1
    values = np.tile(np.rint(np.linspace(0, largest, 24)), (3, 1)).astype(np.uint32)
    path = file(tiff(bits, photometric, values))
    with Image.open(path) as image:
        assert image.mode == mode
        expected = np.rint((values if photometric else largest - values) / largest * 255)
        np.testing.assert_array_equal(pixels(read_image(image))[..., 0], expected)
    np.testing.assert_array_equal(pixels(read_image(path))[..., 2], expected)
    black_and_white = np.where(values > largest / 3, largest, 0)
    with Image.open(file(tiff(bits, photometric, black_and_white))) as image:
        np.testing.assert_array_equal(mask_of_image(image, "a"), (black_and_white == 0) != bool(photometric))


def test_a_mask_is_decoded_before_its_mode_is_asked_for(tmp_path, monkeypatch):
    values = np.array([[0, 65535], [65535, 1]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={262: 0})  # zero is white
    with Image.open(tmp_path / "a.tif") as image:
        own, mode = image.load, image.mode

        def load():
            image._mode = mode  # as decoders may only find out on their way
            return own()

        monkeypatch.setattr(image, "load", load)
        image._mode = "L"
        assert mask_of_image(image, "a").tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("top", [65535, 4095, 1023])
def test_a_deep_pgm_says_its_largest_number(file, top):
    values = np.tile(np.linspace(0, top, 24).astype(">u2"), (3, 1))
    path = file(b"P5 24 3 %d\n" % top + values.tobytes())
    np.testing.assert_allclose(pixels(read_image(path))[..., 0], values / top * 255, atol=0.51)


# What a file says of its colours is not true of the new image.
INFO = [
    ("1", "PNG", {"transparency": 1}), ("L", "PNG", {"transparency": 7}), ("P", "PNG", {"transparency": 0}),
    ("P", "PNG", {"transparency": bytes(range(256))}), ("RGB", "PNG", {"transparency": (0, 0, 0)}),
    ("P", "GIF", {"transparency": 0}), ("I;16", "PNG", {}), ("CMYK", "JPEG", {"icc_profile": b"of printing"}),
    ("L", "PNG", {"icc_profile": b"of greys", "dpi": (300, 300)}), ("LA", "PNG", {}), ("RGBA", "WEBP", {}),
    ("RGB", "JPEG", {"comment": b"mine", "dpi": (72, 72)}), ("L", "TIFF", {"dpi": (72, 72)}), ("LAB", "TIFF", {}),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "format", "info"), INFO)
@pytest.mark.parametrize("orientation", [None, 6])
def test_nothing_of_the_file_rides_along(mode, format, info, orientation):
    image = Image.fromarray(DEEP.astype(np.uint16)) if mode == "I;16" else picture(mode)
    if orientation is not None and format != "GIF":
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        info = {**info, "exif": exif.tobytes()}
    with Image.open(io.BytesIO(encode(image, format, **info))) as stored:
        stored.load()
        before = dict(stored.info)
        read = read_image(stored)
        assert stored.info == before
    assert type(read) is Image.Image
    assert read.info == {}
    assert not read.getexif()
    # Written in any format and read back it is the same opaque picture.
    for writer in ("PNG", "TIFF", "BMP"):
        with Image.open(io.BytesIO(encode(read, writer))) as written:
            assert written.mode == "RGB"
            assert not {"transparency", "icc_profile", "exif", "gamma"} & set(written.info)
            assert written.tobytes() == read.tobytes()


# Bad files


def refused(source, start, end, **options):
    """Asserts that `source` is refused by a message that starts and ends so."""
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    message = str(caught.value)
    assert message.startswith(start), message
    assert message.endswith(end), message
    assert isinstance(caught.value, OSError)


def test_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in ("cat.jpg", tmp_path / "cat.jpg", "", "nul\0.png", "ftp://example.org/cat.jpg", "\udcff.png"):
        refused(
            source,
            f"`image` must be a file that exists, an http(s) URL or an image in base64; got {str(source)!r}. ",
            f"Check the path (relative ones start in {str(tmp_path)!r}).",
        )


def test_folders_and_empty_files(tmp_path, file):
    end = "Pass the images in it, as a list of paths."
    refused(tmp_path, f"`image` must be a file; got the folder '{tmp_path}'. ", end)
    path = file(b"")
    refused(path, f"`image` must hold an image; got '{path}', an empty file. ", "Copy or download it again.")


def test_a_web_page_under_an_images_name(file):
    path = file(b"\n<!DOCTYPE html><title>Log in</title>")
    start = "`image` must hold an image; got '{}', which holds a web page (HTML). "
    refused(path, start.format(path), "Download the image itself.")
    with pytest.raises(
        ImageError, match=r"got 'cat\.png', which holds a web page \(HTML\)\. Download the image itself"
    ):
        read_file(path, "cat.png")


@pytest.mark.parametrize("data", [b"\0" * 100, b"<svg></svg>", PNG[:6], b"GIF"])
def test_file_of_another_kind(file, data):
    refused(
        path := file(data),
        f"`image` must be of a format that Pillow reads; got '{path}'. ",
        "Copy it again, convert it to PNG or JPEG, or install the Pillow plugin for its format.",
    )


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_truncated_file(file, format):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), format)
    path = file(data[: len(data) // 2])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert f"got '{path}'" in str(caught.value)
    assert str(caught.value).startswith("`image` must be ")


def test_truncated_file_by_its_words(file):
    path = file(JPEG[:-400])
    start = f"`image` must be an intact image; got '{path}' (image file is truncated ("
    refused(path, start, "bytes not processed)). Copy or download it again.")
    with Image.open(path) as image:
        refused(image, start, "Copy or download it again.")


def test_decoder_errors_of_any_kind(file):
    broken = bytearray(PNG)
    broken[8:12] = b"\0\0\0\2"  # a header that is too short: Pillow raises ValueError or SyntaxError
    with pytest.raises(ImageError, match=r"^`image` must be .*picture\.png"):
        read_image(file(bytes(broken)))


@pytest.mark.parametrize(
    "error",
    [
        OSError("Unable to locate Ghostscript on paths"),
        OSError("decoder jpeg2k not available"),
        OSError("cannot find loader for this HDF5 file"),
        OSError("Unsupported BMP compression (4)"),
        NotImplementedError("Unimplemented pixel format"),
        SyntaxError("unknown pixel mode"),
    ],
)
def test_an_intact_file_that_pillow_cannot_decode(file, monkeypatch, error):
    def fail(*args):
        raise error

    for kind in (Image.Image, ImageFile.ImageFile):
        monkeypatch.setattr(kind, "load", fail)
    path = file(PNG)
    end = f"({error}). Convert it to PNG or JPEG, or copy it again if it is one of them."
    must = "must be of a kind that this installation of Pillow decodes; got"
    refused(path, f"`image` {must} '{path}' (", end)
    with pytest.raises(ImageError) as caught:
        read_file(path, "a.png")
    assert str(caught.value) == f"`image` {must} 'a.png' {end}"
    with pytest.raises(ImageError) as caught:
        mask_of_file(path, "a.png")
    assert str(caught.value) == f"`mask` {must} 'a.png' {end}"


def test_an_image_beyond_the_memory_is_not_called_broken(file, monkeypatch):
    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    path = file(PNG)
    refused(path, f"`image` must fit into memory; got '{path}', which does not. Shrink it, ", "may be broken.")


def test_closed_image():
    image = Image.open(io.BytesIO(PNG))
    image.close()
    with pytest.raises(ImageError, match=r"^`image` must be an intact image; got a PIL image "):
        read_image(image)


def test_decompression_bomb(file, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    path = file(PNG)
    assert read_image(path).size == SIZE  # 391 pixels: Pillow only warns below twice the limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for source in (path, base64.b64encode(PNG).decode()):
        refused(
            source,
            "`image` must not be larger than Pillow's limit against decompression bombs; got '",
            "Shrink it, or raise `PIL.Image.MAX_IMAGE_PIXELS` if you trust it.",
        )


def test_file_that_may_not_be_read(file, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    path = file(PNG)
    monkeypatch.setattr(Image, "open", refuse)  # file permissions do not stop root
    refused(
        path,
        f"`image` must be an intact image; got '{path}' ([Errno 13] Permission denied",
        "Check that it is there and that you may read it.",
    )


@pytest.mark.parametrize("data", ["", "!", "bm90IGFuIGltYWdl", "abc", "\udcff"])
def test_data_uri_without_an_image(data):
    refused(
        f"data:image/png;base64,{data}",
        f"`image` must be a data URI that holds an image in base64; got {'data:image/png;base64,' + data!r} (",
        "Make it of the file's bytes with base64.b64encode.",
    )


def test_long_sources_are_named_shortly():
    with pytest.raises(ImageError) as caught:
        read_image("QUJD" * 100_000)
    assert f"got '{'QUJD' * 25}...{'QUJD' * 5}'." in str(caught.value)
    assert len(str(caught.value)) < 500


BYTES = "Turn bytes into an image with PIL.Image.open(io.BytesIO(...))."
SEVERAL = (
    "Pass images, or a list of them; the pipeline takes a data set's as "
    '`transformers.pipelines.pt_utils.KeyDataset(dataset, "image")`.'
)


def test_no_pixels():
    with pytest.raises(ImageError, match="`image` must have pixels; got a PIL image of 5 x 0"):
        read_image(Image.new("RGB", (0, 5)))


def test_devices():
    with pytest.raises(ImageError, match="`image` must be a file; got '/dev/null', a device or a pipe"):
        read_image("/dev/null")


@pytest.mark.parametrize(
    ("source", "got", "advice"),
    [
        (None, "NoneType", BYTES), (3, "int", BYTES), (PNG, "bytes", BYTES), ([picture()], "list", SEVERAL),
        (TensorDataset(torch.zeros(1)), "TensorDataset", SEVERAL), (iter([PNG]), "list_iterator", SEVERAL),
        ({"image": picture()}, "dict", 'Pass its image alone, such as `row["image"]`.'),
    ],
)  # fmt: skip
def test_other_types(source, got, advice):
    with pytest.raises(ArgumentTypeError) as caught:
        read_image(source)
    assert str(caught.value) == (
        f"`image` must be a path, a URL, base64 text, a PIL image or an array; got {got}. {advice}"
    )
    assert isinstance(caught.value, TypeError)


# URLs, on this machine


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


@contextmanager
def serving(release):
    class Handler(loopback.QuietHandler):
        def do_GET(self):
            if self.path == "/silent":
                release.wait()  # no answer as long as the test runs
                return
            if self.path == "/broken":
                return  # closes without an answer
            status, kind, body = {
                "/cat.png": (200, "image/png", PNG),
                "/moved": (302, "text/plain", b""),
                "/page": (200, "text/html", b"<html>cat</html>"),
                "/nothing": (200, None, b""),
                "/half.jpg": (200, "image/jpeg", JPEG[:-400]),
            }.get(self.path, (404, "image/png", PNG))  # an image that says "not found" is not what was asked for
            headers = {"Content_Type": kind} if kind else {}
            self.send(status, body, **headers, **({"Location": "/cat.png"} if status == 302 else {}))

    with loopback.serving(Handler) as address:
        try:
            yield address
        finally:
            release.set()


@pytest.fixture
def address():
    with serving(threading.Event()) as address:
        yield address


def test_url(address):
    assert read_image(f"{address}/cat.png").tobytes() == picture().tobytes()
    assert read_image(f"{address}/moved", timeout=60).tobytes() == picture().tobytes()


FALLBACK = "or download the image and pass its path."


SERVES = "`image` must be a URL that serves an image; got '{}', which "


@pytest.mark.parametrize(
    ("path", "start", "advice"),
    [
        ("/dog.png", SERVES + "answers 404 Not Found. ", "Check the address"),
        ("/page", SERVES + "serves a web page (HTML), no image. ", "Pass the address of the image itself"),
        ("/nothing", SERVES + "serves content of no stated type. ", "Pass the address of the image itself"),
        ("/half.jpg", "`image` must be an intact image; got '{}' (image file is truncated", None),
        ("/silent", "`image` must be a URL that answers within `timeout` (0.05 s); got '{}'. ", "Raise `timeout`"),
        (
            "/broken",
            "`image` must be a URL that can be reached; got '{}' (Server disconnected",
            "Check the address and the connection",
        ),
    ],
)
def test_urls_without_an_image(address, path, start, advice):
    url = address + path
    end = f"{advice}, {FALLBACK}" if advice else "Copy or download it again."
    refused(url, start.format(url), end, **({"timeout": 0.05} if path == "/silent" else {}))


def test_url_that_refuses():
    with socket.socket() as taken:  # bound and not listening: nobody else can answer there
        taken.bind(("127.0.0.1", 0))
        refused(
            url := f"http://127.0.0.1:{taken.getsockname()[1]}/cat.png",
            f"`image` must be a URL that can be reached; got '{url}' ([Errno 111] Connection refused). ",
            f"Check the address and the connection, {FALLBACK}",
        )


@pytest.mark.parametrize(
    "url", ["http://", "https:///cat.png", "http://[::1", "http://127.0.0.1:99999/", "http://a\0b/"]
)
def test_url_that_is_none(url):
    with pytest.raises(
        ImageError, match=rf"^`image` must be a URL that can be reached; got {re.escape(repr(url))} \("
    ):
        read_image(url)


def test_user_filters_of_warnings_are_left_alone(file):
    import warnings

    before = list(warnings.filters)
    read_image(file(PNG))
    assert warnings.filters == before
