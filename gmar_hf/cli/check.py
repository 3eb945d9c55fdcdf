"""`gmar-hf check`: the first thing to run on an own model."""

from typing import Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmar_hf.cli.app import DeviceOption, JsonOption, ModelOption, RevisionOption, app, echo_json
from gmar_hf.cli.loading import checked_device, load_image_processor, load_model
from gmar_hf.errors import GMARError, UnsupportedModelError
from gmar_hf.explanation.parity import TOLERANCE, check_parity
from gmar_hf.images.placement import check_placeable
from gmar_hf.models.patches import pair
from gmar_hf.utils.text import printable


def check_model(name: str, revision: str | None, device: str | None, *, show: bool) -> dict[str, Any]:
    """Compare the engine with explicit attention on two random images at the model's own size.

    Args:
        name (`str`): Hub id or folder of an image classifier.
        revision (`str`, *optional*): Of the Hub's repository.
        device (`str`, *optional*): Where to run; the CPU by default.
        show (`bool`): Whether to print what was found.

    Returns:
        `dict`: The model's class, grid, readout, processor, errors, and the `verdict`: "ok", "differs" or
            "unsupported".
    """
    place = checked_device(device) or torch.device("cpu")
    model = load_model(name, revision, torch.float32).to(place).eval()
    summary: dict[str, Any] = {"model": name, "class": type(model).__name__}
    try:
        summary.update(_measure(model, place))
    except UnsupportedModelError as error:
        summary.update(verdict="unsupported", reason=str(error))
    summary["image_processor"] = _processor(name, revision)
    if show:
        _print(summary)
    return summary


def _measure(model: Any, device: torch.device) -> dict[str, Any]:
    config = getattr(model.config, "vision_config", None) or model.config
    size = getattr(config, "image_size", None)
    if size is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no `image_size` in its config. Use a model of the ViT kind."
        )
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(2, getattr(config, "num_channels", 3), *pair(size), generator=generator).to(device)
    parity = check_parity(model, pixel_values)
    found = parity.explanation
    assert found.readout is not None
    assert found.head_contribution is not None
    grid = found.settings["grid"]
    prefix, patches = found.readout[0, : grid["prefix"]], found.readout[0, grid["prefix"] :]
    return {
        "pixels": list(pair(size)),
        "layers": found.head_contribution.shape[1],
        "heads": found.head_contribution.shape[2],
        "prefix_tokens": grid["prefix"],
        "grid": [grid["rows"], grid["cols"]],
        "readout": {
            "prefix": [round(share, 4) for share in prefix.tolist()],
            "patches": round(patches.sum().item(), 4),
        },
        "errors": parity.errors,
        "verdict": "ok" if parity.agrees else "differs",
    }


def _processor(name: str, revision: str | None) -> str:
    try:
        processor = load_image_processor(name, revision)
    except GMARError:
        return "none that can be loaded: `gmar-hf explain` needs one, `gmar_hf.explain` takes pixel_values without"
    try:
        check_placeable(processor)
    except GMARError as error:
        return str(error)
    return f"{type(processor).__name__}: maps can be placed on images"


def _print(summary: dict[str, Any]) -> None:
    table = Table("", "", show_header=False)

    def row(label: str, text: object) -> None:
        table.add_row(label, Text(printable(text)))

    row("model", f"{summary['model']} ({summary['class']})")
    if "grid" in summary:
        rows, cols = summary["grid"]
        row("layers x heads", f"{summary['layers']} x {summary['heads']}")
        row("tokens", f"{summary['prefix_tokens']} prefix + {rows} x {cols} patches")
        shares = ", ".join(f"{share:.2f}" for share in summary["readout"]["prefix"]) or "none"
        row("the head reads", f"prefix tokens {shares}; all patches together {summary['readout']['patches']:.2f}")
        for name, error in summary["errors"].items():
            row(f"error of {name}", f"{error:.1e} of the largest magnitude")
    row("image processor", summary["image_processor"])
    verdict = {
        "ok": f"ok: the engine agrees with explicit attention (within {TOLERANCE:.0e})",
        "differs": f"differs: an error is above {TOLERANCE:.0e}; please report this model",
        "unsupported": summary.get("reason", ""),
    }[summary["verdict"]]
    row("verdict", verdict)
    Console().print(table)
    if summary["verdict"] == "ok":
        typer.echo(f"Explain an image with: gmar-hf explain IMAGE --model {printable(summary['model'])}")


@app.command()
def check(
    model: ModelOption,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Can this model be explained? Compares the engine with explicit attention on one small batch."""

    summary = check_model(model, revision, device, show=not as_json)
    if as_json:
        echo_json(summary)
    if summary["verdict"] != "ok":
        raise typer.Exit(1)
