"""Measure maps on photographs: any image classifier, any labelled folder.

    python examples/benchmarks/photos.py --model google/vit-base-patch16-224 --data photos/test --out photos-maps

Protocol A, SRG (symmetric relevance gain, Bluecher et al., TMLR 2024, arXiv 2401.06654: insertion minus deletion, here
of the logit): photos that the model gets right, their class explained, whole patches in `--num-steps` equal steps,
hidden patches show zero in pixel values, the blurred image or another photo, or their tokens are taken out of the
attention ("removed"). Protocol B, GridPG (Rao et al., CVPR 2022, arXiv 2205.10435): 2 x 2 mosaics of photos of four
classes that the model is sure of, each class explained; the share of the map's positive mass in the quadrant of its
class (chance 0.25), the correlation of the maps of two classes, and how often that quadrant has the largest sum of the
map; a model may see little of a class in a mosaic of small photos, so this is told once more where the model gives the
class little, more and most, in thirds.

Every map is measured in a folder of its own: what has finished in an earlier call is read. Give photographs on which
nothing was tuned. Tables are printed and written to `OUT/photos.md`; which map to believe by them is printed below.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from gmar_hf.data.mosaics import Mosaics
from gmar_hf.evaluation import DEFAULT_METHODS, Evaluation, evaluate, find_map_methods, make_mosaics
from gmar_hf.evaluation.bootstrap import Bootstrap
from gmar_hf.evaluation.mosaic_making import SURE
from gmar_hf.utils.files import replacing
from gmar_hf.utils.text import markdown

SRG = "insertion_minus_deletion_logit"
BASELINES = ("zero", "blur", "other", "removed")
SRG_KEYS = (SRG, *(f"{SRG}_{name}" for name in BASELINES[1:]))
GRID = ("grid_pointing_game", "class_sensitivity", "right_quadrant")

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


def table_of_photos(photos: Evaluation) -> str:
    """Protocol A: means over photos, with half the width of their intervals of 95 %."""
    bootstrap = Bootstrap([row.index for row in photos.rows])
    rows = []
    for method in photos.methods:
        intervals = [bootstrap.interval(photos.of(method["name"], key)) for key in SRG_KEYS]
        cells = [f"{each['mean']:.2f} ± {(each['high'] - each['low']) / 2:.2f}" for each in intervals]
        rows.append([method["name"], *cells, _cost(method)])
    return _table(["map", *(f"SRG, {name}" for name in BASELINES), "cost"], rows)


def table_of_mosaics(grids: Evaluation) -> str:
    """Protocol B: means over classes, and how often the quadrant leads by the probability of its class there."""
    scores = np.array([row.score for row in grids.rows])
    thirds = np.array_split(scores.argsort(kind="stable"), 3)
    headings = [f"of {scores[third].min():.2g} to {scores[third].max():.2g}" for third in thirds]
    rows = []
    for method in grids.methods:
        means = [f"{np.nanmean(grids.of(method['name'], metric)):.2f}" for metric in GRID]
        leads = grids.of(method["name"], "right_quadrant")
        rows.append([method["name"], *means, *(f"{np.nanmean(leads[third]):.2f}" for third in thirds), _cost(method)])
    return _table(["map", "GridPG", "class corr.", "quadrant", *headings, "cost"], rows)


def _cost(method: dict[str, Any]) -> str:
    return "-" if method["forwards"] is None else f"{method['forwards']:.0f}"


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *([markdown(name), *cells] for name, *cells in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


@app.command()
def main(
    model: Annotated[str, typer.Option(help="Folder or id of an image classifier.")],
    data: Annotated[Path, typer.Option(help="Folder with a folder of photos a label.")],
    out: Annotated[Path, typer.Option(help="Folder for results; an interrupted run goes on there.")],
    methods: Annotated[str, typer.Option(help="Maps, between commas.")] = ",".join(DEFAULT_METHODS),
    num_photos: Annotated[int, typer.Option(min=0, help="Photos of protocol A; 0 for none.")] = 200,
    num_mosaics: Annotated[int, typer.Option(min=0, help="Mosaics of protocol B; 0 for none.")] = 60,
    least_score: Annotated[
        float, typer.Option(min=0, max=1, help="Probability from which the model is sure of a mosaic's photo.")
    ] = SURE,
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
    """Measure maps on photographs, and print the tables."""
    if not num_photos and not num_mosaics:
        raise typer.BadParameter("one of them must be more than 0.", param_hint="`--num-photos`, `--num-mosaics`")
    classifier, image_processor = load_classifier(model, image_size, dtype)
    photos = labelled_photos(data, classifier.config.label2id, seed)

    def measured(protocol: str, make_data: Callable[[], Any], **how: Any) -> Evaluation:
        """Measure every map that no earlier call has measured; data are asked for once, where they are needed."""
        made = functools.cache(make_data)
        parts = []
        for method in find_map_methods(methods.split(",")):
            folder = out / protocol / method.name
            if not (folder / "results.json").exists():
                common: dict[str, Any] = dict(target="label", model_id=model, data_id=str(data), batch_size=8)
                evaluate(classifier, made(), image_processor, methods=[method], output_dir=folder, **common, **how)
            parts.append(Evaluation.load(folder / "rows.safetensors"))
        return Evaluation.join(parts)

    def right() -> list[dict[str, Any]]:
        return _as_items(right_photos(classifier, image_processor, photos, num_photos))

    def mosaics() -> Mosaics:
        items = _as_items(photos)
        return make_mosaics(classifier, items, image_processor, limit=num_mosaics, seed=None, least_score=least_score)

    parts, verdicts = [], []
    if num_photos:
        how: dict[str, Any] = dict(num_steps=num_steps, blur_sigma=blur_sigma)
        evaluation = measured("photos", right, metrics=[SRG], baselines=BASELINES, **how)
        head = f"{_number(evaluation)} photos; {num_steps} steps; blur of {blur_sigma:g} pixels; seed {seed}; {dtype}."
        parts.append(f"{head}\n\n{table_of_photos(evaluation)}")
        verdicts.append(f"Photos: {evaluation.verdict().text}\n")
    if num_mosaics:
        evaluation = measured("mosaics", mosaics, metrics=GRID)
        head = f"{_number(evaluation)} mosaics of photos with {least_score:g} or more; seed {seed}; {dtype}."
        parts.append(f"{head}\n\n{table_of_mosaics(evaluation)}")
        verdicts.append(f"Mosaics: {evaluation.verdict().text}\n")
    text = "\n".join(parts)
    with replacing(out / "photos.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    typer.echo(text)
    if document is not None:
        begin, end = f"<!-- {block} -->", f"<!-- /{block} -->"
        before, rest = document.read_text(encoding="utf-8").split(begin)
        with replacing(document) as temporary:
            temporary.write_text(f"{before}{begin}\n{text}{end}{rest.split(end)[1]}", encoding="utf-8")
    for verdict in verdicts:
        typer.echo(verdict)


def _as_items(photos: list[tuple[Path, int]]) -> list[dict[str, Any]]:
    return [{"image": str(path), "label": label} for path, label in photos]


def _number(evaluation: Evaluation) -> int:
    return len({row.index for row in evaluation.rows})


if __name__ == "__main__":
    app()
