"""`gmar-hf check`: the first thing to run on an own model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from gmar_hf.cli.app import command, echo_json
from gmar_hf.cli.options import DeviceOption, JsonOption, ModelOption, RevisionOption
from gmar_hf.errors import GMARError, UnsupportedModelError
from gmar_hf.utils.text import printable

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """The options of `gmar-hf check`."""

    model: ModelOption
    revision: RevisionOption = None
    device: DeviceOption = None
    as_json: JsonOption = False


@command(CheckOptions, example="gmar-hf check --model google/vit-base-patch16-224")
def check(options: CheckOptions) -> None:
    """Can this model be explained? Compare the engine with explicit attention on two images of noise."""
    import torch

    from gmar_hf.cli.loading import checked_device, load_model

    device = checked_device(options.device) or torch.device("cpu")
    model = load_model(options.model, options.revision, torch.float32).to(device).eval()
    # A model that cannot be explained is a verdict, no failure of the command.
    summary: dict[str, Any] = {"model": options.model, "class": type(model).__name__}
    try:
        summary.update(_measure(model, device))
    except UnsupportedModelError as error:
        summary.update(verdict="unsupported", reason=str(error))
    summary["image_processor"] = _describe_processor(options.model, options.revision)
    if options.as_json:
        echo_json(summary)
    else:
        _print(summary)
    if summary["verdict"] != "ok":
        raise typer.Exit(1)


def _measure(model: Any, device: "torch.device") -> dict[str, Any]:
    import torch

    from gmar_hf.explanation.parity import check_parity
    from gmar_hf.models.patches import pair

    config = getattr(model.config, "vision_config", None) or model.config
    size = getattr(config, "image_size", None)
    if size is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no `image_size` in its config. Use a model of the ViT kind."
        )
    # Two images of noise, the same each time.
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(2, getattr(config, "num_channels", 3), *pair(size), generator=generator).to(device)
    parity = check_parity(model, pixel_values)
    explanation = parity.explanation
    assert explanation.readout is not None
    assert explanation.head_contribution is not None
    grid = explanation.settings["grid"]
    prefix, patches = explanation.readout[0].tensor_split([grid["prefix"]])
    return {
        "pixels": list(pair(size)),
        "layers": explanation.head_contribution.shape[1],
        "heads": explanation.head_contribution.shape[2],
        "prefix_tokens": grid["prefix"],
        "grid": [grid["rows"], grid["cols"]],
        "readout": {
            "prefix": [round(share, 4) for share in prefix.tolist()],
            "patches": round(patches.sum().item(), 4),
        },
        "errors": parity.errors,
        "verdict": "ok" if parity.agrees else "differs",
    }


def _describe_processor(name: str, revision: str | None) -> str:
    from gmar_hf.cli.loading import load_image_processor
    from gmar_hf.images.placement import check_placeable

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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from gmar_hf.explanation.parity import TOLERANCE

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
    # Each verdict with what follows from it.
    verdict = {
        "ok": f"ok: the engine agrees with explicit attention (within {TOLERANCE:.0e})",
        "differs": f"differs: an error is above {TOLERANCE:.0e}; please report this model",
        "unsupported": summary.get("reason", ""),
    }[summary["verdict"]]
    row("verdict", verdict)
    Console().print(table)
    if summary["verdict"] == "ok":
        typer.echo(f"Explain an image with: gmar-hf explain IMAGE --model {printable(summary['model'])}")
