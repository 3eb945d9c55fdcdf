"""The one layout of the files that this package writes for itself to read: tensors, and plain JSON beside them.

A file is safetensors. Its metadata has a single entry, since safetensors writes several in any order and the same
artifact is to give the same bytes: a JSON object with `format`, `format_version`, `content` and `sha256`, by which a
file that was damaged on its way is known; one of an older version has none, and is read without.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gmar_hf.errors import ArgumentTypeError, ArtifactError
from gmar_hf.utils.files import replacing
from gmar_hf.utils.plain_json import plain_copy

if TYPE_CHECKING:
    import torch

_ENTRY = "gmar_hf"


@dataclass(frozen=True)
class Artifact:
    """What a file holds.

    Args:
        content (`Any`): Plain JSON values.
        tensors (`dict[str, torch.Tensor]`): On the CPU, by name.
    """

    content: Any
    tensors: "dict[str, torch.Tensor]"


@dataclass(frozen=True)
class ArtifactFormat:
    """A kind of file, with its writer and its reader.

    Args:
        name (`str`): What the file says it is, such as "gmar_hf.explanation".
        version (`int`): Raised whenever older readers would misread the file.
        noun (`str`): What errors call it, such as "an explanation".
        advice (`str`): What to do about a file that cannot be used, a whole sentence.
    """

    name: str
    version: int
    noun: str
    advice: str

    def write(
        self,
        path: str | os.PathLike[str],
        content: Any,
        tensors: "Mapping[str, torch.Tensor]",
        *,
        durable: bool = False,
    ) -> None:
        """Write a file; one that stood there is replaced at once when the new one is complete.

        Args:
            path (`str` or `os.PathLike`): The file.
            content (`Any`): Plain JSON values; what is none is refused.
            tensors (`Mapping[str, torch.Tensor]`): By name, of any strides and on any device.
            durable (`bool`, defaults to False): Whether the file must also survive the machine's sudden end.

        Raises:
            ArgumentError: If the place cannot be written, or the content is no plain JSON.
            ArgumentTypeError: If `path` is no path.
        """
        import torch
        from safetensors.torch import save

        # Copies: safetensors takes neither strides nor two tensors that share memory.
        copies = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        header = {"format": self.name, "format_version": self.version, "content": plain_copy("content", content)}
        header["sha256"] = _digest(header, copies)
        with replacing(path, durable=durable) as temporary:
            # Not `save_file`, whose files only their owner may read.
            temporary.write_bytes(save(copies, {_ENTRY: json.dumps(header)}))

    @contextmanager
    def reading(self, path: str | os.PathLike[str]) -> Iterator[Artifact]:
        """Read a file; whatever fails in the block, where the caller unpacks it, is the file's fault.

        Args:
            path (`str` or `os.PathLike`): The file.

        Raises:
            ArgumentTypeError: If `path` is no path.
            ArtifactError: If the file is missing, of another kind or version, or damaged.
        """
        from safetensors import SafetensorError, safe_open

        if not isinstance(path, str | os.PathLike):
            raise ArgumentTypeError(
                f"`path` must be the file of {self.noun}; got {type(path).__name__}. Pass its path."
            )
        name = os.fspath(path)
        if not os.path.isfile(name):
            raise ArtifactError(f"`path` must be the file of {self.noun}; got {name!r}, which is no file.")
        try:
            with safe_open(name, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get(_ENTRY, "{}"))
                self._check_header(header, name)
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if header.pop("sha256", None) not in (None, _digest(header, tensors)):
                raise ValueError("it was damaged: its sha256 is another")
            yield Artifact(header["content"], tensors)
        except ArtifactError:
            raise
        except (
            ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, SafetensorError, TypeError,
            ValueError,
        ) as error:  # fmt: skip
            raise ArtifactError(
                f"{name!r} must be {self.noun}; it cannot be used ({' '.join(str(error).split())}). {self.advice}"
            ) from error

    def _check_header(self, header: Any, name: str) -> None:
        kind = header.get("format") if isinstance(header, dict) else None
        if kind != self.name:
            raise ArtifactError(f"{name!r} must be {self.noun}; it is something else. {self.advice}")
        if header.get("format_version") != self.version:
            raise ArtifactError(
                f"{name!r} must have format version {self.version} to be read here; got "
                f"{header.get('format_version')!r}. Use the gmar_hf that wrote it. {self.advice}"
            )


def _digest(header: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]") -> str:
    """Return the SHA-256 of all that a file says."""
    import torch

    digest = hashlib.sha256(json.dumps(header).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
