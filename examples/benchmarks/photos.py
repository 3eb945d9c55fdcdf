"""Measure maps on photographs: any image classifier, any labelled folder.

    python examples/benchmarks/photos.py --model google/vit-base-patch16-224 --data photos/test --out photos-maps

Protocol A, SRG (symmetric relevance gain, Bluecher et al., TMLR 2024, arXiv 2401.06654: insertion minus deletion, here
of the logit): photos that the model gets right, their class explained, whole patches in `--num-steps` equal steps,
hidden patches show zero in pixel values, the blurred image or another photo, or their tokens are taken out of the
attention ("removed"). Protocol B, GridPG (Rao et al., CVPR 2022, arXiv 2205.10435): 2 x 2 mosaics of photos of four
classes that the model is sure of, each class explained; the share of the map's positive mass in the quadrant of its
class (chance 0.25), how often that quadrant has the largest sum of the map, and the correlation of the maps of two
classes. A model may see little of a class in a mosaic of small photos: a second table tells how often the quadrant
leads where the model gives the class little, more and most, in thirds.

Every map is measured in a folder of its own: what has finished in an earlier call is read. Give photographs on which
nothing was tuned. The table is printed and written to `OUT/photos.md`; which map to believe by it is printed below.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from gmar_hf.evaluation import DEFAULT_METHODS, Evaluation, evaluate, find_map_methods, make_mosaics
from gmar_hf.evaluation.bootstrap import Bootstrap
from gmar_hf.utils.files import replacing
from gmar_hf.utils.text import markdown

SRG = "insertion_minus_deletion_logit"
BASELINES = ("zero", "blur", "other", "removed")
GRID = ("grid_pointing_game", "right_quadrant", "class_sensitivity")
HEADINGS = ("map", *(f"SRG, {name}" for name in BASELINES), "GridPG", "quadrant", "class corr.", "cost")

Dtype = Literal["float32", "bfloat16"]

app = typer.Typer(add_completion=False)


def load_classifier(model: str, image_size: int | None, dtype: str = "float32") -> tuple[Any, Any]:
    """A classifier in eval mode, and its image processor, which crops to `image_size` pixels a side if given."""
    classifier = AutoModelForImageClassification.from_pretrained(
        model, trust_remote_code=False, dtype=getattr(torch, dtype)
    ).eval()
    image_processor = AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
    if image_size is not None:
        image_processor.size = {"shortest_edge": round(image_size * 256 / 224)}
        image_processor.crop_size = {"height": image_size, "width": image_size}
    return classifier, image_processor


def labelled_photos(folder: Path, label2id: dict[str, int], seed: int) -> list[tuple[Path, int]]:
    """The folder's photos in an order drawn with the seed, with the classes that their folders name."""
    kinds = {".jpg", ".jpeg", ".png", ".webp"}
    paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in kinds)
    unknown = sorted({path.parent.name for path in paths} - set(label2id))
    if not paths or unknown:
        raise typer.BadParameter(
            f"`--data` must have a folder of photos for each label, named as the model names it; got {unknown[:3]}."
        )
    order = np.random.default_rng(seed).permutation(len(paths))
    return [(paths[place], label2id[paths[place].parent.name]) for place in order]


def right_photos(
    model: Any, image_processor: Any, photos: list[tuple[Path, int]], number: int
) -> list[tuple[Path, int]]:
    """The first photos whose class the model ranks first."""
    right = []
    for path, label in photos:
        with Image.open(path) as image, torch.no_grad():
            pixels = image_processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
            logits = model(pixel_values=pixels.to(model.dtype)).logits[0]
        if logits.argmax() == label:
            right.append((path, label))
        if len(right) == number:
            break
    return right


def table(photos: Evaluation, grids: Evaluation | None) -> str:
    """Means over photos, with half the width of their intervals of 95 %."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "| " + " | ".join(["---"] * len(HEADINGS)) + " |"]
    bootstrap = Bootstrap([row.index for row in photos.rows])
    on_grids = [method["name"] for method in grids.methods] if grids is not None else []  # not all may be
    for method in photos.methods:
        cells = [markdown(method["name"])]
        for baseline in BASELINES:
            key = SRG if baseline == BASELINES[0] else f"{SRG}_{baseline}"
            interval = bootstrap.interval(photos.of(method["name"], key))
            cells.append(f"{interval['mean']:.2f} ± {(interval['high'] - interval['low']) / 2:.2f}")
        for metric in GRID:
            is_there = method["name"] in on_grids
            cells.append(f"{np.nanmean(grids.of(method['name'], metric)):.2f}" if is_there else "-")
        cells.append("-" if method["forwards"] is None else f"{method['forwards']:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def table_of_thirds(grids: Evaluation) -> str:
    """How often the right quadrant leads, by the probability that the model gives its class in the mosaic."""
    scores = np.array([row.score for row in grids.rows])
    thirds = np.array_split(scores.argsort(kind="stable"), 3)
    headings = [f"{scores[third].min():.2g} to {scores[third].max():.2g}" for third in thirds]
    lines = ["| quadrant, where the class has | " + " | ".join(headings) + " |", "| --- | --- | --- | --- |"]
    for method in grids.methods:
        leads = grids.of(method["name"], "right_quadrant")
        means = [f"{np.nanmean(leads[third]):.2f}" for third in thirds]
        lines.append("| " + " | ".join([markdown(method["name"]), *means]) + " |")
    return "\n".join(lines) + "\n"


@app.command()
def main(
    model: Annotated[str, typer.Option(help="Folder or id of an image classifier.")],
    data: Annotated[Path, typer.Option(help="Folder with a folder of photos a label.")],
    out: Annotated[Path, typer.Option(help="Folder for results; an interrupted run goes on there.")],
    methods: Annotated[str, typer.Option(help="Maps, between commas.")] = ",".join(DEFAULT_METHODS),
    num_photos: Annotated[int, typer.Option(min=2, help="Photos of protocol A.")] = 200,
    num_mosaics: Annotated[int, typer.Option(min=0, help="Mosaics of protocol B; 0 for none.")] = 60,
    max_mosaic_cost: Annotated[float, typer.Option(help="Maps of more forwards are not drawn on mosaics.")] = math.inf,
    num_steps: Annotated[int, typer.Option(min=1, help="Steps of insertion and deletion.")] = 8,
    blur_sigma: Annotated[float, typer.Option(help="Width of the blur in pixels.")] = 14.0,
    image_size: Annotated[int | None, typer.Option(help="Pixels a side, where not the processor's own.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="What the model computes in; bfloat16 halves the time.")] = "float32",
    seed: Annotated[int, typer.Option(help="Seed of the choice of photos.")] = 0,
    document: Annotated[Path | None, typer.Option(help="A file to write the table into, where `--block` is.")] = None,
    block: Annotated[
        str, typer.Option(help="The table's place there: between <!-- BLOCK --> and <!-- /BLOCK -->.")
    ] = "photos",
) -> None:
    """Measure maps on photographs, and print the table."""
    classifier, image_processor = load_classifier(model, image_size, dtype)
    photos = labelled_photos(data, classifier.config.label2id, seed)
    right = right_photos(classifier, image_processor, photos, num_photos)
    typer.echo(f"{len(right)} photos that the model gets right")
    items = [{"image": str(path), "label": label} for path, label in right]

    @functools.cache  # for the first map that has not been measured on them
    def mosaics() -> Any:
        all_items = [{"image": str(path), "label": label} for path, label in photos]
        return make_mosaics(classifier, all_items, image_processor, limit=num_mosaics, seed=None)

    parts, grid_parts = [], []
    for method in find_map_methods(methods.split(",")):
        common: dict[str, Any] = dict(
            methods=[method], target="label", model_id=model, data_id=str(data), batch_size=8
        )
        parts.append(
            _measured(
                out / "photos" / method.name, classifier, lambda: items, image_processor,
                metrics=[SRG], baselines=BASELINES, num_steps=num_steps, blur_sigma=blur_sigma, **common,
            )
        )  # fmt: skip
        if num_mosaics and (parts[-1].methods[0]["forwards"] or 0) <= max_mosaic_cost:
            grid_parts.append(
                _measured(
                    out / "mosaics" / method.name, classifier, mosaics, image_processor,
                    metrics=GRID, **common,
                )
            )  # fmt: skip
    on_photos, on_mosaics = Evaluation.join(parts), Evaluation.join(grid_parts) if grid_parts else None
    text = table(on_photos, on_mosaics)
    if on_mosaics is not None:
        text += "\n" + table_of_thirds(on_mosaics)
    num_made = 0 if on_mosaics is None else len({row.index for row in on_mosaics.rows})
    head = f"{len(right)} photos, {num_made} mosaics; {num_steps} steps; blur of {blur_sigma:g} pixels; seed {seed}; "
    head += f"{dtype}."
    head += "\n\n"
    with replacing(out / "photos.md") as temporary:
        temporary.write_text(head + text, encoding="utf-8")
    typer.echo(head + text)
    if document is not None:
        begin, end = f"<!-- {block} -->", f"<!-- /{block} -->"
        before, rest = document.read_text(encoding="utf-8").split(begin)
        with replacing(document) as temporary:
            temporary.write_text(f"{before}{begin}\n{head}{text}{end}{rest.split(end)[1]}", encoding="utf-8")
    for name, evaluation in (("Photos", on_photos), ("Mosaics", on_mosaics)):
        if evaluation is not None:
            typer.echo(f"{name}: {evaluation.verdict().text}\n")


def _measured(folder: Path, model: Any, data: Callable[[], Any], *args: Any, **kwargs: Any) -> Evaluation:
    """Read what an earlier call has measured, or measure it, on data that is asked for only then."""
    if not (folder / "results.json").exists():
        return evaluate(model, data(), *args, output_dir=folder, **kwargs)
    return Evaluation.load(folder / "rows.safetensors")


if __name__ == "__main__":
    app()
