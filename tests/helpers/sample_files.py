"""Image files for data sets: real ones, broken ones, and what can be told of them once they are read."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from gmar_hf.data import MapData, open_data
from gmar_hf.errors import ArgumentError

LABELS = {0: "cat", 1: "dog", 2: "tabby, tabby cat", 3: "crane", 4: "crane"}


def encoded(shade=0, format="PNG", mode="RGB", size=(8, 6)):
    """The bytes of a picture (width, height) of one shade, 0 to 255."""
    picture = Image.new("L", size, shade).convert(mode)
    file = BytesIO()
    picture.save(file, format)
    return file.getvalue()


def deep_grey():
    """The bytes of a PNG of 16 bits, half of white."""
    file = BytesIO()
    Image.fromarray(np.full((6, 8), 128 * 257, dtype=np.uint16)).save(file, "PNG")
    return file.getvalue()


def truncated():
    """The first half of a PNG that does not compress."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()[:1500]


def shade(sample):
    """The shade of a sample's picture of one shade; None if it has none."""
    if sample.image is None:
        return None
    assert sample.error is None
    assert sample.image.mode == "RGB"
    (low, high), *others = sample.image.getextrema()
    assert low == high
    assert others == [(low, high)] * 2
    return low


def shades(samples):
    return [shade(sample) for sample in samples]


def read(source, **settings):
    """All samples of data that can be read in any order, opened for `LABELS`."""
    data = open_data(source, LABELS, **settings)
    assert isinstance(data, MapData)
    return [data.read(index) for index in range(len(data))]


def everything(data):
    """Name, labels and shade of every sample of opened data."""
    assert isinstance(data, MapData)
    samples = [data.read(index) for index in range(len(data))]
    return [(sample.name, sample.labels, shade(sample)) for sample in samples]


def message(source, error=ArgumentError, **settings):
    """The sentence in which data are refused, when they are opened or read."""
    with pytest.raises(error) as caught:
        read(source, **settings)
    assert str(caught.value).isprintable()
    return str(caught.value)


def write(folder, files):
    """Write `{relative path: bytes, or a shade}`, making folders."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(content) if isinstance(content, int) else content)
    return folder
