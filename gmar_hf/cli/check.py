"""`gmar-hf check`: the first thing to run on an own model."""

import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from gmar_hf.cli.app import command, echo_json, tell
from gmar_hf.cli.architecture_table import check_all
from gmar_hf.cli.options import DeviceOption, JsonOption, LabelOption, RevisionOption, TemplateOption
from gmar_hf.errors import ArgumentError, GMARError, UnsupportedModelError
from gmar_hf.utils.text import printable, shown

_PHOTO = (480, 640)  # height and width of what the image processor is given

if TYPE_CHECKING:
    import torch

    from gmar_hf.explanation.parity import Parity


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """The options of `gmar-hf check`."""

    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="Hub id or folder of an image classifier.")
    ] = None
    every: Annotated[
        bool, typer.Option("--all", help="In place of --model: every architecture, on tiny random models; minutes.")
    ] = False
    label: LabelOption = None
    hypothesis_template: TemplateOption = None
    revision: RevisionOption = None
    device: DeviceOption = None
    as_json: JsonOption = False


@command(CheckOptions, example="gmar-hf check --model google/vit-base-patch16-224")
def check(options: CheckOptions) -> None:
    """Can this model be explained? Compare the engine with explicit attention, and the gradient with the logits.

    Two images of noise are explained, of the size that the image processor gives to photographs.
    """
    if (options.model is None) != options.every:
        raise typer.BadParameter("one of them is needed, and no more", param_hint="--model / --all")
    if options.model is None:
        check_all(as_json=options.as_json)
    else:
        _check_model(options.model, options)


def _check_model(name: str, options: CheckOptions) -> None:
    import torch

    from gmar_hf.cli.loading import checked_device, load_classifier

    device = checked_device(options.device) or torch.device("cpu")
    model = load_classifier(
        name,
        options.revision,
        labels=options.label,
        hypothesis_template=options.hypothesis_template,
        dtype=torch.float32,
    )
    model = model.to(device).eval()
    tell("Explaining two images of noise, and once more by explicit attention and by small steps, to compare ...")
    processor = _find_processor(name, options.revision)
    # A model that cannot be explained is a verdict, no failure of the command.
    summary: dict[str, Any] = {"model": name, "class": type(model).__name__}
    try:
        summary.update(_measure(model, _noise(model, processor.found).to(device)))
    except (UnsupportedModelError, ArgumentError) as error:  # the second, of pixels that the model does not take
        summary.update(verdict="unsupported", reason=str(error))
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = f"its forward fails on these images ({shown(error, 200)}); look whether it takes their size"
        summary.update(verdict="unsupported", reason=reason)
    summary["image_processor"] = processor.description
    if options.as_json:
        echo_json(summary)
    else:
        _print(summary)
        if summary["verdict"] == "ok" and processor.is_placeable:
            labels = "".join(f" --label {shlex.quote(label)}" for label in options.label or ())
            if options.hypothesis_template:
                labels += f" --hypothesis-template {shlex.quote(options.hypothesis_template)}"
            typer.echo(printable(f"Explain an image with: gmar-hf explain IMAGE --model {name}{labels}"))
    if summary["verdict"] != "ok":
        raise typer.Exit(1)


def _noise(model: Any, processor: Any) -> "torch.Tensor":
    """Make pixel values of two images of noise, the same each time: as the processor makes them, if there is one."""
    import numpy as np
    import torch
    from PIL import Image

    from gmar_hf.images.flat_patches import pixel_values_of
    from gmar_hf.models.introspection import setting
    from gmar_hf.models.patches import pair

    if processor is not None:
        draws = np.random.default_rng(0)
        images = [Image.fromarray(draws.integers(0, 256, (*_PHOTO, 3), dtype=np.uint8)) for _ in range(2)]
        with suppress(KeyError):  # of a processor that makes other things
            return pixel_values_of(images, processor)
    # Without one, in the size of the config.
    size = setting(model, "image_size")
    if size is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no `image_size` in its config. Use a model of the ViT kind."
        )
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, setting(model, "num_channels") or 3, *pair(size), generator=generator, device="cpu")


def _measure(model: Any, pixel_values: "torch.Tensor") -> dict[str, Any]:
    from gmar_hf.explanation.parity import check_parity
    from gmar_hf.models.labels import check_label_names
    from gmar_hf.models.windows import has_stages

    parity = check_parity(model, pixel_values)
    assert parity.explanation.logits is not None
    check_label_names(model, parity.explanation.logits.shape[1])
    explanation = parity.explanation
    assert explanation.readout is not None
    assert explanation.head_contribution is not None
    grid = explanation.settings["grid"]
    prefix, patches = explanation.readout[0].tensor_split([grid["prefix"]])
    return {
        "pixels": list(pixel_values.shape[-2:]),
        "layers": explanation.head_contribution.shape[1],
        "heads": explanation.settings.get("num_heads") or explanation.head_contribution.shape[2],
        "in_stages": has_stages(model),
        "prefix_tokens": grid["prefix"],
        "grid": [grid["rows"], grid["cols"]],
        "readout": {
            "prefix": [round(share, 4) for share in prefix.tolist()],
            "patches": round(patches.sum().item(), 4),
        },
        "errors": parity.errors,
        "gradient_errors": parity.gradient_errors,
        "gradient_tolerance": parity.gradient_tolerance,
        "noise": parity.noise,
        "mixing": parity.mixing,
        "verdict": _verdict(parity),
    }


def _verdict(parity: "Parity") -> str:
    if not parity.is_steady:  # of which all else follows
        return "noisy"
    if not parity.images_are_separate:
        return "mixes images"
    return "ok" if parity.agrees else "differs" if not parity.engine_agrees else "wrong gradient"


class _Processor(NamedTuple):
    """The model's image processor, None if it cannot be loaded; and whether it is known where its pixels come from."""

    found: Any
    is_placeable: bool
    description: str


def _find_processor(name: str, revision: str | None) -> _Processor:
    from gmar_hf.cli.loading import load_image_processor
    from gmar_hf.images.placement import check_placeable

    try:
        processor = load_image_processor(name, revision)
    except GMARError:
        missing = "none that can be loaded: `gmar-hf explain` needs one, `gmar_hf.explain` takes pixel_values without"
        return _Processor(None, False, missing)
    try:
        check_placeable(processor)
    except GMARError as error:
        return _Processor(processor, False, str(error))
    return _Processor(processor, True, f"{type(processor).__name__}: maps can be placed on images")


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
        heads = summary["heads"] if isinstance(summary["heads"], int) else ", ".join(map(str, summary["heads"]))
        row("layers x heads", f"{summary['layers']} x {heads}")
        row("pixels", " x ".join(map(str, summary["pixels"])))
        if summary["in_stages"]:
            others = "; class tokens or padding beside them" if summary["prefix_tokens"] else ""
            row("tokens", f"{rows} x {cols} patches, merged from stage to stage{others}")
        else:
            row("tokens", f"{summary['prefix_tokens']} prefix + {rows} x {cols} patches")
            shares = ", ".join(f"{share:.2f}" for share in summary["readout"]["prefix"]) or "none"
            row("the head reads", f"prefix tokens {shares}; all patches together {summary['readout']['patches']:.2f}")
        for name, error in summary["errors"].items():
            row(f"error of {name}", f"{error:.1e} of the largest magnitude")
        for layer, error in summary["gradient_errors"].items():
            row(f"gradient of layer {layer}", f"{error:.1e} from finite differences of the logits")
    row("image processor", summary["image_processor"])
    # Each verdict with what follows from it.
    verdict = {
        "ok": (
            f"ok: the engine agrees with explicit attention (within {TOLERANCE:.0e}), the gradient with finite "
            f"differences of the logits (within {summary.get('gradient_tolerance', 0):.0e}: they have errors, too)"
        ),
        "noisy": (
            f"noisy: two forwards of the same images in eval mode differ by {summary.get('noise', 0):.1e} of the "
            "largest logit, so every explanation is of one draw; look for dropout or noise that is always on"
        ),
        "mixes images": (
            f"mixes images: the logits of an image by itself are {summary.get('mixing', 0):.1e} of the largest from "
            "those that it has in a batch, so no gradient tells what one image did; look for a mean over the batch"
        ),
        "differs": f"differs: an error is above {TOLERANCE:.0e}; please report this model",
        "wrong gradient": (
            f"wrong gradient: it is more than {summary.get('gradient_tolerance', 0):.0e} from finite differences of "
            "the logits, so maps and contributions would be wrong; look for `torch.no_grad`, `detach` or quantised "
            "layers in the model"
        ),
        "unsupported": summary.get("reason", ""),
    }[summary["verdict"]]
    row("verdict", verdict)
    Console().print(table)
