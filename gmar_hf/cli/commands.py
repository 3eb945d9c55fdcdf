"""The commands that look at single images: explain, demo, check."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..methods import METHODS
from .app import DeviceOption, JsonOption, ModelOption, RevisionOption, app, echo_json

Method = StrEnum("Method", [(name, name) for name in METHODS])  # type: ignore[misc]

_GMAR = Method("gmar")


class Norm(StrEnum):
    """Norms of the attention's gradient."""

    L1 = "l1"
    L2 = "l2"


@app.command()
def explain(
    images: Annotated[list[str], typer.Argument(help="Files, folders, globs or URLs.", metavar="IMAGE...")],
    model: ModelOption = "google/vit-base-patch16-224",
    revision: RevisionOption = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Label or index to explain; repeat it for several.")
    ] = None,
    versus: Annotated[str | None, typer.Option(help="Label or index: why the target and not this one.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Explain the best K labels; 1 by default.")] = None,
    method: Annotated[Method, typer.Option(help="How the map is made.")] = _GMAR,
    norm: Annotated[Norm, typer.Option(help="Norm of gmar's head scores.")] = Norm.L1,
    batch_size: Annotated[int, typer.Option(min=1, help="Images explained at once.")] = 8,
    device: DeviceOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("gmar-explanations"),
    as_json: JsonOption = False,
) -> None:
    """Explain images: an overlay for each target, maps and head scores, and a table of what was found."""
    from .explaining import explain_images

    summary = explain_images(
        images,
        model=model,
        revision=revision,
        device=device,
        batch_size=batch_size,
        out=out,
        parameters={
            "target": [_label(one) for one in target] if target else None,
            "versus": None if versus is None else _label(versus),
            "top_k": top_k,
            "method": method.value,
            "norm": norm.value,
        },
        show=not as_json,
    )
    if as_json:
        echo_json(summary)
    if any("error" in image for image in summary):
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("gmar-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Which scenes.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Explain both garments of bundled scenes with the bundled ViT, offline, by two methods side by side."""
    from .demonstration import demonstrate

    summary = demonstrate(out, seed, show=not as_json)
    if as_json:
        echo_json(summary)


@app.command()
def check(
    model: ModelOption,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Can this model be explained? Compares the engine with explicit attention on one small batch."""
    from .checking import check_model

    summary = check_model(model, revision, device, show=not as_json)
    if as_json:
        echo_json(summary)
    if summary["verdict"] != "ok":
        raise typer.Exit(1)


def _label(text: str) -> str | int:
    """An index where the text is digits, also where a label is."""
    return int(text) if re.fullmatch(r"\d{1,9}", text) else text
