"""`gmar-hf env`: what a bug report needs to know of the machine."""

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass

import typer

from gmar_hf.cli.app import command, echo_json
from gmar_hf.cli.options import JsonOption

_PACKAGES = (
    "gmar-hf", "torch", "torchvision", "transformers", "accelerate", "safetensors", "huggingface-hub", "numpy",
    "Pillow", "matplotlib", "datasets", "captum", "torchcam", "peft", "timm",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """The options of `gmar-hf env`."""

    as_json: JsonOption = False


@command(EnvOptions, example="gmar-hf env")
def env(options: EnvOptions) -> None:
    """Print what a bug report needs: versions, Python, the system and its devices. No names, no paths, no tokens."""
    facts: dict[str, str] = {package: _version(package) for package in _PACKAGES}
    facts |= {
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "devices": ", ".join(_devices()),
    }
    if options.as_json:
        echo_json(facts)
        return
    for name, fact in facts.items():
        typer.echo(f"{name + ':':18}{fact}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names or ["cpu alone"]
