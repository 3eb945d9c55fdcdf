"""Images read and explained batch by batch for `gmar-hf explain`, so that one bad image leaves the others alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmar_hf.errors import GMARError, UnsupportedModelError
from gmar_hf.utils.text import printable

if TYPE_CHECKING:
    from PIL import Image

    from gmar_hf._pipeline.results import ExplanationResult
    from gmar_hf.pipeline import GMARExplainer


def explained_images(
    explainer: "GMARExplainer", images: "ImagesAgain", sources: list[str], batch_size: int
) -> Iterator[list["ExplanationResult"] | Exception]:
    """Yield results in the order of the sources, and an exception in the place of each image that has none."""
    for start in range(0, len(sources), batch_size):
        batch = sources[start : start + batch_size]
        errors: dict[str, Exception] = {}
        results = attempt(_explained, explainer, images, batch, errors)
        good = [source for source in batch if source not in errors]
        if isinstance(results, Exception):  # one image spoils its batch: find out which
            results = [attempt(_explained_alone, explainer, images, source) for source in good]
        explained = dict(zip(good, results, strict=True))
        for source in batch:
            yield errors[source] if source in errors else explained[source]


def _explained(
    explainer: "GMARExplainer", images: "ImagesAgain", sources: list[str], errors: dict[str, Exception]
) -> list[list["ExplanationResult"]]:
    """Explain a batch; images that cannot be read are left out, and their errors noted."""
    from torch.utils.data import IterableDataset

    class Readable(IterableDataset["Image.Image"]):
        """The images, one after the other: the pipeline keeps their pixel values, and none of them."""

        def __iter__(self) -> "Iterator[Image.Image]":
            for source in sources:
                image = attempt(images.read, source)
                if isinstance(image, Exception):
                    errors[source] = image
                else:
                    yield image
                del image

    return list(explainer(Readable(), batch_size=len(sources)))


def _explained_alone(explainer: "GMARExplainer", images: "ImagesAgain", source: str) -> list["ExplanationResult"]:
    return explainer(images.read(source))


class ImagesAgain:
    """Images by source: files are read as often as they are needed, addresses once, and kept until they are drawn."""

    def __init__(self) -> None:
        self._fetched: dict[str, Image.Image] = {}

    def read(self, source: str) -> "Image.Image":
        """Read an image, to be explained."""
        from gmar_hf.images.reading import read_image

        image = read_image(source)
        if not Path(source).is_file():
            self._fetched[source] = image
        return image

    def read_again(self, source: str) -> "Image.Image":
        """Read an image for the last time."""
        from gmar_hf.images.reading import read_image

        return self._fetched.pop(source) if source in self._fetched else read_image(source)


def attempt(function: Any, *args: Any) -> Any:
    """Return what a function returns, or the exception of one image; memory that it lacks is a matter of one, too."""
    try:
        return function(*args)
    except UnsupportedModelError:
        raise  # no other image will fare better
    except Exception as error:
        return error


def told(error: Exception) -> str:
    """Return an error as one line."""
    text = printable(" ".join(str(error).split()))
    if isinstance(error, MemoryError):
        return f"there is not enough memory for it{f' ({text})' if text else ''}. Shrink it, or lower `--batch-size`."
    return text if isinstance(error, GMARError | OSError) else f"{type(error).__name__}: {text}".rstrip(": ")
