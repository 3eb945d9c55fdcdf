"""`gmar-hf explain`: images in, a folder of results out."""

import math
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmar_hf.cli.app import command, echo_json, tell
from gmar_hf.cli.explained_images import ImagesAgain, attempt, explained_images, told
from gmar_hf.cli.explanation_files import ExplanationFiles, Taken
from gmar_hf.cli.image_arguments import expand, safe, stem, unique
from gmar_hf.cli.options import DeviceOption, JsonOption, LabelOption, ModelOption, RevisionOption, TemplateOption
from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.methods import METHODS, get_method, why_heads_differ
from gmar_hf.plotting.painting import SATURATED
from gmar_hf.utils.files import made_folder
from gmar_hf.utils.text import printable, quantity

if TYPE_CHECKING:
    from gmar_hf._pipeline.results import ExplanationResult
    from gmar_hf.pages.explanations import AddImage

_PAGE = "index.html"
_LONGEST_NAME = 100  # letters of an image's name on the page
_FEW = 4  # images up to which no progress bar is worth showing


_SIDE_BY_SIDE = ("recommended", "gmar")
_METHODS_HELP = f"Maps, between commas or repeated; by default {' and '.join(_SIDE_BY_SIDE)}, if the model has both. "
_METHODS_HELP += " ".join(f"{name}: {method.summary}." for name, method in METHODS.items())


def _known_methods(texts: list[str] | None) -> list[str]:
    """Return the methods that were named, each once; of an unknown one is told before anything is loaded."""
    names = [name.strip() for text in texts or () for name in text.split(",")]
    for name in names:
        try:
            get_method(name)
        except ArgumentError as error:
            raise typer.BadParameter(str(error)) from error
    return list(dict.fromkeys(names))


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

    images: Annotated[list[str], typer.Argument(help="Files, folders, globs or URLs.", metavar="IMAGE")]
    model: ModelOption = "google/vit-base-patch16-224"
    revision: RevisionOption = None
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", metavar="LABEL", help="Label or index to explain; repeat it for several."),
    ] = None
    versus: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Label or index: why the target and not this one.")
    ] = None
    label: LabelOption = None
    hypothesis_template: TemplateOption = None
    top_k: Annotated[int | None, typer.Option(metavar="K", min=1, help="Explain the best K labels; 1 by default.")] = (
        None
    )
    method: Annotated[list[str] | None, typer.Option(help=_METHODS_HELP, metavar="NAME", callback=_known_methods)] = (
        None
    )
    norm: Annotated[Norm, typer.Option(help="Norm of gmar's head scores.")] = Norm.L1
    overlay: Annotated[
        OverlayStyle, typer.Option(help="Draw what speaks for and against the label, or only what speaks for it.")
    ] = OverlayStyle.SIGNED
    saturated: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Share of a map's patches, the strongest, that have the full colour."
        ),
    ] = SATURATED
    grid: Annotated[bool, typer.Option("--grid", help="Draw maps patch by patch, as coarse as they are.")] = False
    caption: Annotated[
        bool, typer.Option("--caption/--no-caption", help="Label, score, method, colours and scale below each map.")
    ] = True
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images explained at once.")] = 8
    device: DeviceOption = None
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the results.")] = Path(
        "gmar-explanations"
    )
    html: Annotated[
        bool, typer.Option("--html", help="Also write index.html: one page of all images, to search, click and send.")
    ] = False
    as_json: JsonOption = False

    def parameters(self) -> dict[str, Any]:
        """Return the pipeline's parameters, which are the settings in the files too; what is only printed is none."""
        texts = {"candidate_labels": self.label, "hypothesis_template": self.hypothesis_template}
        return {
            **{name: value for name, value in texts.items() if value is not None},
            "target": [_label(text) for text in self.target] if self.target else None,
            "versus": None if self.versus is None else _label(self.versus),
            "top_k": self.top_k,
            "method": self.method,
            "norm": self.norm.value,
        }


@command(ExplainOptions, example="gmar-hf explain cat.jpg --target 'tabby, tabby cat' --html")
def explain(options: ExplainOptions) -> None:
    """Explain images: an overlay for each target, maps and head scores, and a table of the strongest heads."""
    # Everything that can be refused is refused before the first image.
    sources = expand(options.images)
    with made_folder("`--out`", options.out):
        summary = _explain(options, sources)
    if options.as_json:
        echo_json(summary)
    else:
        _print_table(summary, options.out)
        if options.html:
            typer.echo(f"All of it on one page, which can be sent: {printable(options.out / _PAGE)}")
    if any("error" in image for image in summary):
        raise typer.Exit(1)


def _explain(options: ExplainOptions, sources: list[str]) -> list[dict[str, Any]]:
    """Explain images into the folder, which is there; return what is said of each."""
    from tqdm import tqdm

    from gmar_hf.cli.loading import load_explainer
    from gmar_hf.explanation.engine import versions
    from gmar_hf.images.own_pictures import is_own_picture

    out, parameters = options.out, options.parameters()
    # Pictures are drawn when they are written.
    returned = {"return_heatmap": False, "return_explanation": True, "return_head_maps": options.html or None}
    explainer, parameters["method"] = load_explainer(
        options.model, options.revision, options.device, {**parameters, **returned}, _SIDE_BY_SIDE
    )
    settings = {"model": options.model, "revision": options.revision, **parameters, "versions": versions()}
    names = unique([safe(stem(source), 100) for source in sources], set())
    # On the page without folders, which are nobody else's concern.
    shown = unique([stem(source)[:_LONGEST_NAME] for source in sources], set())
    # One set for all, as "a-b" of "c" and "a" of "b-c" would be one file; and no overlay may take an image's place,
    # nor that of a picture which was there and is none of ours.
    pictures = {Path(source).stem.casefold() for source in sources if Path(source).parent.resolve() == out.resolve()}
    pictures |= {path.stem.casefold() for path in out.glob("*.png") if not is_own_picture(path)}
    files = ExplanationFiles(
        folder=out,
        taken=Taken(pictures, {name.casefold() for name in names}),
        settings=settings,
        style=options.overlay.value,
        grid=options.grid,
        caption=options.caption,
        saturated=options.saturated,
    )
    tell(f"Explaining {quantity(len(sources), 'image')} by {', '.join(parameters['method'])} ...")
    images = ImagesAgain()
    summary = []
    explained = explained_images(explainer, images, sources, options.batch_size)
    bar = tqdm(total=len(sources), unit="image", disable=True if len(sources) <= _FEW else None)
    with bar, _page(options, parameters["method"]) as add_to_page:

        def write(source: str, name: str, on_page: str, results: list["ExplanationResult"]) -> dict[str, Any]:
            image = images.read_again(source)
            entry = files.write(name, source, image, results)
            add_to_page(on_page, image, results)
            return entry

        for source, name, on_page, results in zip(sources, names, shown, explained, strict=True):
            # Whatever becomes of one image, writing included, leaves the others alone.
            entry = results if isinstance(results, Exception) else attempt(write, source, name, on_page, results)
            if isinstance(entry, Exception):
                message = told(entry)
                tqdm.write(f"gmar-hf: {printable(source)}: {message}", file=typer.get_text_stream("stderr"))
                entry = {"image": source, "error": message}
            summary.append(entry)
            bar.update()
    return summary


def _label(text: str) -> str | int:
    """Return an index where the text is digits, also where a label is."""
    return int(text) if re.fullmatch(r"\d{1,9}", text) else text


def _page(options: ExplainOptions, methods: list[str]) -> AbstractContextManager["AddImage"]:
    """Open the page, where one is asked for."""
    from gmar_hf.pages.explanations import open_page

    if not options.html:
        return nullcontext(lambda name, image, results: None)
    title = f"Explanations by {Path(options.model).name or 'a local model'}"
    about = {name: f"{METHODS[name].summary}." for name in methods}
    notes = [why_heads_differ(methods)] if why_heads_differ(methods) else []
    return open_page(options.out / _PAGE, title=title, methods=about, notes=notes)


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
        first = next(entry["files"]["overlays"][0] for entry in summary if "files" in entry)
        typer.echo(f"Look first at {printable(out / first)}")
        for line in _remarks(summary):
            typer.echo(line)
    for entry in summary:
        for result in entry.get("results", []):
            if "note" in result:
                typer.echo(f"{printable(entry['image'])}, {result['method']}: {result['note']}")


def _remarks(summary: list[dict[str, Any]]) -> list[str]:
    """Return what puzzles people who see the table and the pictures: heads that differ, and what a crop hid."""
    from gmar_hf.images.sight import sight_of_several

    results = [result for entry in summary for result in entry.get("results", []) if result["top_heads"]]
    weighing = [result["method"] for result in results if "head_importance" in result["top_heads"][0]]
    contributing = [result["method"] for result in results if "head_contribution" in result["top_heads"][0]]
    shares = [entry["seen_share"] for entry in summary if "seen_share" in entry]
    return [line for line in (why_heads_differ(contributing, weighing), sight_of_several(shares)) if line]


def _head_text(head: dict[str, Any]) -> str:
    where = f"{head['layer']}.{head['head']}"
    if "head_contribution" in head:
        return f"{where}: {head['head_contribution']:+.2f}"
    return f"{where}: {head['head_importance']:.0%}"
