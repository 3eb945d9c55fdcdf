"""`gmar-hf explain`: images in, a folder of results out."""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmar_hf.cli.app import command, echo_json, tell
from gmar_hf.cli.explained_images import ImagesAgain, attempt, explained_images, told
from gmar_hf.cli.explanation_files import ExplanationFiles
from gmar_hf.cli.explanation_table import print_table
from gmar_hf.cli.file_names import FileNames
from gmar_hf.cli.image_arguments import expand, num_in_subfolders, safe, stem, unique
from gmar_hf.cli.interruption import INTERRUPTED, sigterm_as_control_c
from gmar_hf.cli.options import DeviceOption, JsonOption, LabelOption, ModelOption, RevisionOption, TemplateOption
from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.methods import METHODS, get_method, why_heads_differ
from gmar_hf.plotting.saturation import SATURATED
from gmar_hf.utils.files import locked, made_folder, staged
from gmar_hf.utils.own_files import image_digest
from gmar_hf.utils.text import printable, quantity

if TYPE_CHECKING:
    from gmar_hf._pipeline.results import ExplanationResult
    from gmar_hf.pages.explanations import AddImage
    from gmar_hf.pipeline import GMARExplainer

_PAGE = "index.html"
_LONGEST_NAME = 100  # letters of an image's name on the page
_FEW = 4  # images up to which no progress bar is worth showing


_SIDE_BY_SIDE = ("recommended", "gmar")
_METHODS_HELP = (
    f"Maps, between commas or repeated; by default {' and '.join(_SIDE_BY_SIDE)}, if the model has both, and with "
    f"--versus {_SIDE_BY_SIDE[0]} alone, since gmar cannot tell labels apart. "
)
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


def _at_most_one(texts: list[str] | None) -> list[str] | None:
    """Refuse an option that was given twice, of which the last one would count without a word."""
    if texts and len(texts) > 1:
        raise typer.BadParameter(f"it must be given once; got {len(texts)}. Run the command once for each.")
    return texts


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
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Explain the images in subfolders of folders, too.")
    ] = False
    model: ModelOption = "google/vit-base-patch16-224"
    revision: RevisionOption = None
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", metavar="LABEL", help="Label or index to explain; repeat it for several."),
    ] = None
    versus: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Label or index: why the target and not this one.", callback=_at_most_one),
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
    head_weights: Annotated[
        str | None,
        typer.Option(
            metavar="REPORT",
            help="Folder or Hub id of a head-importance report by which gmar weighs heads, in place of the gradient.",
        ),
    ] = None
    num_points: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Points of recommended and path, a pass each; 2 by default."),
    ] = None
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
        optional = {
            "candidate_labels": self.label,
            "hypothesis_template": self.hypothesis_template,
            "num_points": self.num_points,
            "head_weights": self.head_weights,
        }
        return {
            **{name: value for name, value in optional.items() if value is not None},
            "target": [_label(text) for text in self.target] if self.target else None,
            "versus": _label(self.versus[0]) if self.versus else None,
            "top_k": self.top_k,
            "method": self.method,
            "norm": self.norm.value,
        }


@command(ExplainOptions, example="gmar-hf explain cat.jpg --target 'tabby, tabby cat' --html")
def explain(options: ExplainOptions) -> None:
    """Explain images: an overlay for each target, maps and head scores, and a table of the strongest heads."""
    # Everything that can be refused is refused before the first image.
    sources = expand(options.images, recursive=options.recursive)
    num_left_out = 0 if options.recursive else num_in_subfolders(options.images)
    if num_left_out:
        typer.echo(
            f"gmar-hf: {quantity(num_left_out, 'image')} in subfolders left out; --recursive explains them too.",
            err=True,
        )
    done = _Done()
    try:
        with sigterm_as_control_c(), made_folder("`--out`", options.out):
            _explain(options, sources, done)
    except KeyboardInterrupt:
        done.is_stopped = True
    _print(options, done)
    if done.is_stopped:
        kept = f"; what is made of them is kept in {printable(options.out)}" if done.num_explained else ""
        typer.echo(
            f"gmar-hf: interrupted. {done.num_explained} of {quantity(len(sources), 'image')} explained{kept}. "
            "The same command begins anew.",
            err=True,
        )
        raise typer.Exit(INTERRUPTED)
    if any("error" in image for image in done.summary):
        raise typer.Exit(1)


@dataclass
class _Done:
    """What has been done until now: what is said of each image, the page's file, and whether somebody stopped it."""

    summary: list[dict[str, Any]] = field(default_factory=list)
    page: Path | None = None
    is_stopped: bool = False

    @property
    def num_explained(self) -> int:
        return sum("results" in image for image in self.summary)


def _print(options: ExplainOptions, done: _Done) -> None:
    if options.as_json:
        if done.summary or not done.is_stopped:
            echo_json(done.summary)
        return
    print_table(done.summary, options.out, done.page)


def _explain(options: ExplainOptions, sources: list[str], done: _Done) -> None:
    """Explain images into the folder, which is there, and note what is done."""
    from gmar_hf.cli.loading import load_explainer
    from gmar_hf.explanation.engine import versions

    parameters = options.parameters()
    # Pictures are drawn when they are written.
    returned = {"return_heatmap": False, "return_explanation": True, "return_head_maps": options.html or None}
    methods = _SIDE_BY_SIDE if options.versus is None or options.head_weights is not None else _SIDE_BY_SIDE[:1]
    explainer, parameters["method"] = load_explainer(
        options.model, options.revision, options.device, {**parameters, **returned}, methods
    )
    file_names = FileNames(options.out, sources)
    names = [file_names.of_image(safe(stem(source), 100), image_digest(source)) for source in sources]
    files = ExplanationFiles(
        folder=options.out,
        names=file_names,
        settings={"model": options.model, "revision": options.revision, **parameters, "versions": versions()},
        style=options.overlay.value,
        grid=options.grid,
        caption=options.caption,
        saturated=options.saturated,
    )
    tell(f"Explaining {quantity(len(sources), 'image')} by {', '.join(parameters['method'])} ...")
    if not options.html:
        _write_all(explainer, options, dict(zip(sources, names, strict=True)), files, done)
        return
    from gmar_hf.pages.explanations import PAGE_NOUN

    with staged("`--out`", options.out) as stage:
        with _page(options, stage, parameters["method"]) as add_to_page:
            _write_all(explainer, options, dict(zip(sources, names, strict=True)), files, done, add_to_page)
        images = [image_digest(entry["image"]) for entry in done.summary if "results" in entry]
        if not images:
            return
        with locked(options.out):
            name = file_names.of_page(PAGE_NOUN, images)
            file_names.place(stage / _PAGE, name)
    done.page = options.out / name


def _write_all(
    explainer: "GMARExplainer",
    options: ExplainOptions,
    names: dict[str, str],
    files: ExplanationFiles,
    done: _Done,
    add_to_page: "AddImage | None" = None,
) -> None:
    """Explain one image after the other and write its files, until all are done or somebody stops it."""
    from tqdm import tqdm

    images = ImagesAgain()
    # On the page without folders, which are nobody else's concern.
    shown = unique([stem(source)[:_LONGEST_NAME] for source in names], set())

    def write(source: str, on_page: str, results: list["ExplanationResult"]) -> dict[str, Any]:
        image = images.read_again(source)
        entry = files.write(names[source], source, image, results)
        if add_to_page is not None:
            add_to_page(on_page, image, results, image_digest(source))
        return entry

    explained = explained_images(explainer, images, list(names), options.batch_size)
    with tqdm(total=len(names), unit="image", disable=True if len(names) <= _FEW else None) as bar:
        try:
            for source, on_page, results in zip(names, shown, explained, strict=True):
                # Whatever becomes of one image, writing included, leaves the others alone.
                entry = results if isinstance(results, Exception) else attempt(write, source, on_page, results)
                if isinstance(entry, Exception):
                    message = told(entry)
                    tqdm.write(f"gmar-hf: {printable(source)}: {message}", file=typer.get_text_stream("stderr"))
                    entry = {"image": source, "error": message}
                done.summary.append(entry)
                bar.update()
        except KeyboardInterrupt:
            if not done.num_explained:
                raise
            done.is_stopped = True  # what is made is kept


def _label(text: str) -> str | int:
    """Return an index where the text is digits, also where a label is."""
    return int(text) if re.fullmatch(r"\d{1,9}", text) else text


def _page(options: ExplainOptions, folder: Path, methods: list[str]) -> AbstractContextManager["AddImage"]:
    """Open the page."""
    from gmar_hf.pages.explanations import open_page

    title = f"Explanations by {Path(options.model).name or 'a local model'}"
    about = {name: f"{METHODS[name].summary}." for name in methods}
    notes = [why_heads_differ(methods)] if why_heads_differ(methods) else []
    return open_page(folder / _PAGE, title=title, methods=about, notes=notes)
