"""Names for files in a folder where others lie, of the user and of earlier calls, which are all to stay."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from gmar_hf.cli.image_arguments import numbered
from gmar_hf.utils.files import replacing
from gmar_hf.utils.own_files import look_at

_PAGE = "index"


class FileNames:
    """Gives names that are free: of no file, or of one that an earlier call has made of the same image.

    Names given in this call are not given again, also in other case, which does not tell files apart everywhere.

    Args:
        folder (`Path`): Where the files go.
        sources (`Iterable[str]`): The images that are explained, some of which may lie there.
    """

    def __init__(self, folder: Path, sources: Iterable[str]) -> None:
        self._folder = folder
        place = folder.resolve()
        self._given = {Path(source).name.casefold() for source in sources if Path(source).parent.resolve() == place}

    def of_image(self, wish: str, image: str) -> str:
        """Return a name for an image's results; its JSON and first tensors are called so.

        Args:
            wish (`str`): What it would be called, without an ending.
            image (`str`): The image's digest.
        """
        for name in numbered(wish):
            files = _main_files(name)
            if not any(file.casefold() in self._given for file in files) and self.is_left(name, image):
                self._given |= {file.casefold() for file in files}
                return name
        raise AssertionError("numbers do not end")

    def is_left(self, name: str, image: str) -> bool:
        """Tell whether no other process has taken a name meanwhile."""
        return all(self._may_replace(file, image) for file in _main_files(name))

    def of_file(self, wish: str, ending: str, image: str) -> str:
        """Return a name, with its ending, for one more file of an image."""
        for name in numbered(wish):
            file = name + ending
            if file.casefold() not in self._given and self._may_replace(file, image):
                self._given.add(file.casefold())
                return file
        raise AssertionError("numbers do not end")

    def of_page(self, noun: str, images: Collection[str]) -> str:
        """Return a name for a page; one that stood there showed no other images than these.

        Args:
            noun (`str`): What it shows.
            images (`Collection[str]`): The digests of its images.
        """
        for name in numbered(_PAGE):
            path = self._folder / f"{name}.html"
            made = look_at(path)
            is_same = made is not None and made.noun == noun and bool(made.images) and made.images <= set(images)
            if is_same or not os.path.lexists(path):
                return path.name
        raise AssertionError("numbers do not end")

    def place(self, file: Path, name: str) -> None:
        """Put a file that is complete where it belongs."""
        with replacing(self._folder / name) as temporary:
            os.replace(file, temporary)

    def _may_replace(self, file: str, image: str) -> bool:
        path = self._folder / file
        if not os.path.lexists(path):
            return True
        made = look_at(path)
        return made is not None and made.images == {image}


def _main_files(name: str) -> tuple[str, str]:
    return f"{name}.json", f"{name}.safetensors"
