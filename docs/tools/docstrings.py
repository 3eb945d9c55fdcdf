"""Docstrings for the site: links of Hugging Face's kind, [`name`], lead to the reference where it has the name."""

import re
from typing import Any

import griffe

FACES = ("", "demo", "errors", "evaluation", "metrics", "pages", "plotting")  # whose names the reference lists
LINK = re.compile(r"\[`([\w.]+)`\](?![\[(])")


class PublicNames(griffe.Extension):
    """Prepares all docstrings of a package."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite every docstring, once all of the package is loaded.

        Args:
            pkg (`griffe.Module`): The package.
        """
        self._public: dict[str, str] = {}
        for face in FACES:
            module = pkg[face] if face else pkg
            for name in map(str, module.exports or ()):
                path = f"{module.path}.{name}"
                self._public.setdefault(name, path)  # names of the package itself come first
                self._public[path.removeprefix(f"{pkg.path}.")] = path
        self._rewrite(pkg)

    def _rewrite(self, item: griffe.Object) -> None:
        if item.docstring is not None:
            text = LINK.sub(lambda link: self._link(link[1], item), item.docstring.value)
            item.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
        for name, member in item.members.items():
            if name.startswith("__") and name != "__call__":
                member.docstring = None  # what nobody calls by name is left out
            if not member.is_alias:
                self._rewrite(member)

    def _link(self, name: str, item: griffe.Object) -> str:
        owner = item if item.is_class else item.parent
        if owner is not None and owner.is_class and name in owner.members and owner.name in self._public:
            path: str | None = f"{owner.path}.{name}"
        else:
            path = self._public.get(name.removeprefix("gmar_hf."))
        return f"[`{name}`][{path}]" if path else f"`{name}`"
