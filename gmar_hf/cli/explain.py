"""`gmar-hf explain`: images in, a folder of results out."""

import json
import math
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from gmar_hf.cli.app import command, echo_json
from gmar_hf.cli.image_arguments import expand, make_folder, safe, stem, unique
from gmar_hf.cli.options import DeviceOption, JsonOption, ModelOption, RevisionOption
from gmar_hf.errors import GMARError, UnsupportedModelError
from gmar_hf.explanation.methods import METHODS
from gmar_hf.utils.files import replacing
from gmar_hf.utils.text import printable

if TYPE_CHECKING:
    from PIL import Image

    from gmar_hf._pipeline_results import ExplanationResult
    from gmar_hf.explanation.result import Explanation
    from gmar_hf.pages.explanations import AddImage
    from gmar_hf.pipeline import GMARExplainer

_PAGE = "index.html"
_NUM_STRONGEST = 3  # heads that are listed for each label
_LONGEST_NAME = 100  # letters of an image's name on the page
_FEW = 4  # images up to which no progress bar is worth showing


Method = StrEnum("Method", [(name, name) for name in METHODS])  # type: ignore[misc]
_SIDE_BY_SIDE = ("gmar", "recommended")
_METHODS_HELP = f"How the map is made; repeat it for several. By default {' and '.join(_SIDE_BY_SIDE)}. "
_METHODS_HELP += " ".join(f"{name}: {method.summary}." for name, method in METHODS.items())


class OverlayStyle(StrEnum):
    """What an overlay shows of a map."""

    POSITIVE = "positive"
    SIGNED = "signed"


class Norm(StrEnum):
    """Norms of the attention's gradient."""

    L1 = "l1"
    L2 = "l2"


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """The options of `gmar-hf explain`."""

    images: Annotated[list[str], typer.Argument(help="Files, folders, globs or URLs.", metavar="IMAGE...")]
    model: ModelOption = "google/vit-base-patch16-224"
    revision: RevisionOption = None
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Label or index to explain; repeat it for several.")
    ] = None
    versus: Annotated[str | None, typer.Option(help="Label or index: why the target and not this one.")] = None
    top_k: Annotated[int | None, typer.Option(min=1, help="Explain the best K labels; 1 by default.")] = None
    method: Annotated[list[Method] | None, typer.Option(help=_METHODS_HELP, show_default=False)] = None
    norm: Annotated[Norm, typer.Option(help="Norm of gmar's head scores.")] = Norm.L1
    overlay: Annotated[
        OverlayStyle, typer.Option(help="Draw what speaks for the label, or against it too, in blue and striped.")
    ] = OverlayStyle.POSITIVE
    grid: Annotated[bool, typer.Option("--grid", help="Draw maps patch by patch, as coarse as they are.")] = False
    caption: Annotated[bool, typer.Option("--caption", help="Label, score, method and scale below each map.")] = False
    batch_size: Annotated[int, typer.Option(min=1, help="Images explained at once.")] = 8
    device: DeviceOption = None
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("gmar-explanations")
    html: Annotated[
        bool, typer.Option("--html", help="Also write index.html: one page of all images, to search, click and send.")
    ] = False
    as_json: JsonOption = False

    def parameters(self) -> dict[str, Any]:
        """Return the pipeline's parameters, which are the settings in the files too; what is only printed is none."""
        return {
            "target": [_label(text) for text in self.target] if self.target else None,
            "versus": None if self.versus is None else _label(self.versus),
            "top_k": self.top_k,
            "method": list(dict.fromkeys(self.method)) if self.method else list(_SIDE_BY_SIDE),
            "norm": self.norm.value,
        }


class _Taken(NamedTuple):
    """Names of files in use, without their endings, in lower case."""

    pictures: set[str]
    tensors: set[str]


@command(ExplainOptions, example="gmar-hf explain cat.jpg --target 'tabby, tabby cat' --method contribution")
def explain(options: ExplainOptions) -> None:
    """Explain images: an overlay for each target, maps and head scores, and a table of the strongest heads."""
    from tqdm import tqdm

    from gmar_hf.cli.loading import load_explainer
    from gmar_hf.explanation.engine import versions

    # Everything that can be refused is refused before the first image.
    sources, out = expand(options.images), options.out
    make_folder(out)
    parameters = options.parameters()
    drawn = {"overlay_style": options.overlay.value, "overlay_grid": options.grid, "overlay_caption": options.caption}
    returned = {"return_overlay": True, **drawn, "return_explanation": True, "return_head_maps": options.html or None}
    explainer = load_explainer(options.model, options.revision, options.device, {**parameters, **returned})
    settings = {"model": options.model, "revision": options.revision, **parameters, "versions": versions()}
    names = unique([safe(stem(source), 100) for source in sources], set())
    # One set for all, as "a-b" of "c" and "a" of "b-c" would be one file; and no overlay may take an image's place.
    pictures = {Path(source).stem.casefold() for source in sources if Path(source).parent.resolve() == out.resolve()}
    taken = _Taken(pictures, {name.casefold() for name in names})
    summary = []
    explained = _explain(explainer, sources, options.batch_size)
    bar = tqdm(total=len(sources), unit="image", disable=True if len(sources) <= _FEW else None)
    with bar, _page(options) as add_to_page:
        for source, name, outcome in zip(sources, names, explained, strict=True):
            if isinstance(outcome, Exception):
                message = printable(" ".join(str(outcome).split()))
                tqdm.write(f"gmar-hf: {printable(source)}: {message}", file=typer.get_text_stream("stderr"))
                summary.append({"image": source, "error": message})
            else:
                image, results = outcome
                summary.append(_write(out, name, taken, source, results, settings))
                add_to_page(
                    stem(source)[:_LONGEST_NAME], image, results
                )  # no folders, which are nobody else's concern
            bar.update()
    if options.as_json:
        echo_json(summary)
    else:
        _print_table(summary, out)
        if options.html:
            typer.echo(f"All of it on one page, which can be sent: {printable(out / _PAGE)}")
    if any("error" in image for image in summary):
        raise typer.Exit(1)


def _label(text: str) -> str | int:
    """Return an index where the text is digits, also where a label is."""
    return int(text) if re.fullmatch(r"\d{1,9}", text) else text


def _page(options: ExplainOptions) -> AbstractContextManager["AddImage"]:
    """Open the page, where one is asked for."""
    from gmar_hf.pages.explanations import open_page

    if not options.html:
        return nullcontext(lambda name, image, results: None)
    title = f"Explanations by {Path(options.model).name or 'a local model'}"
    methods = {name: f"{METHODS[name].summary}." for name in options.parameters()["method"]}
    return open_page(options.out / _PAGE, title=title, methods=methods)


def _explain(
    explainer: "GMARExplainer", sources: list[str], batch_size: int
) -> Iterator[tuple["Image.Image", list["ExplanationResult"]] | Exception]:
    """Yield images and results in the order of the sources, and an exception in the place of each that has none."""
    from PIL import Image

    from gmar_hf.images.reading import read_image

    for start in range(0, len(sources), batch_size):
        read = [_attempt(read_image, source) for source in sources[start : start + batch_size]]
        good = [image for image in read if isinstance(image, Image.Image)]
        results = _attempt(explainer, good, batch_size=batch_size) if good else []
        if isinstance(results, Exception):  # one image spoils its batch: find out which
            results = [_attempt(explainer, image) for image in good]
        explained = iter(results)
        for image in read:
            outcome = image if isinstance(image, Exception) else next(explained)
            yield outcome if isinstance(outcome, Exception) else (image, outcome)


def _attempt(function: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except UnsupportedModelError:
        raise  # no other image will fare better
    except (GMARError, ValueError, RuntimeError, OSError) as error:
        return error


def _write(
    out: Path, name: str, taken: _Taken, source: str, results: list["ExplanationResult"], settings: dict[str, Any]
) -> dict[str, Any]:
    """Write one image's pictures, tensors and JSON; the JSON comes last, so that it stands for complete results."""
    from gmar_hf.plotting import side_by_side

    # Pictures first, then tensors, then the JSON that names them all.
    num_methods = len(settings["method"])
    by_target = [results[place : place + num_methods] for place in range(0, len(results), num_methods)]
    labels = [of_methods[0]["label"] for of_methods in by_target]
    pictures = unique([f"{name}-{safe(label)}" for label in labels], taken.pictures)
    for picture, of_methods in zip(pictures, by_target, strict=True):
        overlays = {result["method"]: result["overlay"] for result in of_methods}
        with replacing(out / f"{picture}.png") as temporary:
            (side_by_side(overlays) if num_methods > 1 else of_methods[0]["overlay"]).save(temporary)
    # A file a method; the first method's bears the image's name alone.
    tensors: dict[str, str] = {}
    for result in by_target[0]:
        method = result["method"]
        (file_name,) = unique([f"{name}.{method}"], taken.tensors) if tensors else [name]
        tensors[method] = f"{file_name}.safetensors"
        explanation = _without_targets_axis(result["explanation"], len(by_target))
        about = {"image": source, "labels": labels, "command": settings}
        replace(explanation, settings={**explanation.settings, **about}).save(out / tensors[method])
    files = {"tensors": tensors, "overlays": [f"{picture}.png" for picture in pictures]}
    kept = ("method", "label", "score", "target", "versus", "box", "completeness_gap", "note")
    shown = [
        {**{key: result[key] for key in kept if key in result}, "top_heads": result.top_heads(_NUM_STRONGEST)}
        for result in results
    ]
    entry = {"image": source, "results": shown, "files": files}
    with replacing(out / f"{name}.json") as temporary:
        text = json.dumps({**entry, "settings": settings}, indent=2)
        temporary.write_text(text, encoding="utf-8")
    return {**entry, "files": {"json": f"{name}.json", **files}}


def _without_targets_axis(explanation: "Explanation", num_targets: int) -> "Explanation":
    """Return an explanation of one image as `explain` has it: with an axis of targets only where there are several."""
    if num_targets > 1:
        return explanation
    squeezed: dict[str, Any] = {
        name: tensor.squeeze(1) for name, tensor in explanation.tensors().items() if name != "logits"
    }
    return replace(explanation, **squeezed)


def _print_table(summary: list[dict[str, Any]], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "label", "score", "map", "strongest heads (layer.head)")
    for entry in summary:
        for result in entry.get("results", []):
            heads = ", ".join(_head_text(head) for head in result["top_heads"])
            score = f"{result['score']:.3f}" if math.isfinite(result["score"]) else "?"
            label = result["label"] + (f" (not {result['versus']})" if "versus" in result else "")
            table.add_row(*(Text(printable(cell)) for cell in (entry["image"], label, score, result["method"], heads)))
    if table.row_count:
        Console().print(table)
        typer.echo(f"Overlays, maps and head scores are in {printable(out)}")
    for entry in summary:
        for result in entry.get("results", []):
            if "note" in result:
                typer.echo(f"{printable(entry['image'])}, {result['method']}: {result['note']}")


def _head_text(head: dict[str, Any]) -> str:
    where = f"{head['layer']}.{head['head']}"
    if "head_contribution" in head:
        return f"{where}: {head['head_contribution']:+.2f}"
    return f"{where}: {head['head_importance']:.0%}"
