"""Train the three demo models again, from seeds, on two cores.

    python examples/benchmarks/train_demo_models.py garments          # the sheet of test garments
    python examples/benchmarks/train_demo_models.py train vit
    python examples/benchmarks/train_demo_models.py train deit --teacher gmar_hf/demo/vit
    python examples/benchmarks/train_demo_models.py train beit --teacher gmar_hf/demo/vit

`--data` is a folder with Fashion-MNIST's four idx files; Debian's package dataset-fashion-mnist brings one.
"""

import gzip
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import transformers
import typer
from PIL import Image
from tqdm import tqdm

from gmar_hf.demo.scene import GARMENT_SIZE, LABELS, SCENE_SIZE, SceneStyle, make_scene, scenes

FASHION_MNIST_CLASSES = (0, 1, 3, 5, 8, 9)  # Fashion-MNIST's own indices of LABELS, in that order
NUM_TEST_GARMENTS = 64  # of each label, in the bundled sheet
BATCH_SIZE = 64
# The first lessons: one big garment, almost no background.
LARGE_SINGLE = SceneStyle(min_size=30, max_size=44, brightness=0.1)
NUM_FIRST_SCENES, NUM_SCENES = 24_000, 72_000
FIRST_SHARE = 0.3  # of the steps
ARCHITECTURE = dict(
    hidden_size=128, num_hidden_layers=6, num_attention_heads=8, intermediate_size=256, image_size=SCENE_SIZE,
    patch_size=8,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, problem_type="multi_label_classification",
    id2label=dict(enumerate(LABELS)), label2id={label: index for index, label in enumerate(LABELS)},
)  # fmt: skip

app = typer.Typer(add_completion=False, help=__doc__)
DataOption = Annotated[Path, typer.Option(help="Folder with Fashion-MNIST's idx files.")]
DATA = Path("/usr/share/datasets/fashion-mnist")
DEMO = Path(__file__).resolve().parents[2] / "gmar_hf" / "demo"


class Family(StrEnum):
    VIT = "vit"
    DEIT = "deit"
    BEIT = "beit"


NUM_STEPS = {Family.VIT: 6000, Family.DEIT: 4500, Family.BEIT: 4500}  # a taught model learns faster


def read_garments(data: Path, part: str) -> list[np.ndarray]:
    """The garments of one part ("train" or "t10k") by label: uint8 arrays (n, 28, 28)."""
    with gzip.open(data / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, GARMENT_SIZE, GARMENT_SIZE)
    with gzip.open(data / f"{part}-labels-idx1-ubyte.gz") as file:
        classes = np.frombuffer(file.read(), np.uint8, offset=8)
    return [images[classes == index] for index in FASHION_MNIST_CLASSES]


@app.command()
def garments(data: DataOption = DATA, out: Path = DEMO / "garments.png") -> None:
    """Write the sheet of test garments that `gmar_hf.demo.scenes` draws from."""
    rows = [np.concatenate(list(images[:NUM_TEST_GARMENTS]), axis=1) for images in read_garments(data, "t10k")]
    Image.fromarray(np.concatenate(rows)).save(out, optimize=True)


def prepare(garments: list[np.ndarray], count: int, seed: int, first: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Scenes as uint8 (count, 3, 64, 64) and multi-hot labels (count, 6)."""
    pixels = np.empty((count, SCENE_SIZE, SCENE_SIZE, 3), np.uint8)
    labels = torch.zeros(count, len(LABELS))
    for index in tqdm(range(count), desc="scenes", disable=None):
        rng = np.random.default_rng([seed, index])
        if first:
            pixels[index], masks = make_scene(rng, garments, 1, LARGE_SINGLE)
        else:
            pixels[index], masks = make_scene(rng, garments, 1 + index % 2)
        labels[index, list(masks)] = 1
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels


@torch.no_grad()
def teach(teacher: transformers.PreTrainedModel, pixels: torch.Tensor) -> torch.Tensor:
    """The teacher's probabilities (count, 6) for prepared scenes; a mirrored scene is taught the same."""
    chunks = tqdm(pixels.split(500), desc="teacher", disable=None)
    return torch.cat([teacher(pixel_values=normalise(chunk)).logits.sigmoid() for chunk in chunks])


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float() / 127.5 - 1


def make_model(family: Family) -> transformers.PreTrainedModel:
    if family is Family.VIT:
        return transformers.ViTForImageClassification(transformers.ViTConfig(**ARCHITECTURE))
    if family is Family.DEIT:
        return transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**ARCHITECTURE))
    config = transformers.BeitConfig(
        **ARCHITECTURE, use_relative_position_bias=True, use_absolute_position_embeddings=False, use_mean_pooling=True,
        layer_scale_init_value=1.0, drop_path_rate=0.0,
    )  # fmt: skip
    return transformers.BeitForImageClassification(config)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under precision over recall as the plain sum over the positives, highest score first."""
    hits = truth[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


@torch.no_grad()
def evaluate(model: transformers.PreTrainedModel, num_images: int = 2000, seed: int = 1_000_000) -> list[float]:
    """Average precision per label on fresh scenes of the test garments, half with one garment and half with two."""
    fresh = [*scenes(num_images // 2, seed, 1), *scenes(num_images // 2, seed + 1, 2)]
    pixels = torch.from_numpy(np.stack([np.asarray(scene["image"]) for scene in fresh])).permute(0, 3, 1, 2)
    truth = np.array([[label in scene["labels"] for label in range(len(LABELS))] for scene in fresh])
    model.eval()
    scores = torch.cat([model(pixel_values=normalise(chunk)).logits for chunk in pixels.split(250)]).numpy()
    return [average_precision(scores[:, label], truth[:, label]) for label in range(len(LABELS))]


def loss_of(outputs, labels: torch.Tensor, teaching: torch.Tensor | None) -> torch.Tensor:
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    if teaching is None:
        return loss(outputs.logits, labels)
    if "distillation_logits" in outputs:  # DeiT: the class token learns the labels, the distillation token the teacher
        return loss(outputs.cls_logits, labels) + loss(outputs.distillation_logits, teaching)
    return (loss(outputs.logits, labels) + loss(outputs.logits, teaching)) / 2


@app.command()
def train(
    family: Family, data: DataOption = DATA, out: Path = DEMO, teacher: Path | None = None,
    steps: Annotated[int | None, typer.Option(help="Batches; by default as many as the bundled model saw.")] = None,
    seed: int = 0, threads: int = 2,
) -> None:  # fmt: skip
    """Train one demo model and write it, in half precision, into OUT/FAMILY."""
    steps = steps or NUM_STEPS[family]
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    train_garments = read_garments(data, "train")
    model = make_model(family).train()
    teacher_model = None
    if teacher:
        load = transformers.AutoModelForImageClassification.from_pretrained
        teacher_model = load(teacher, dtype=torch.float32).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, weight_decay=0.05, fused=True)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    num_first = int(steps * FIRST_SHARE)
    losses: list[float] = []
    with tqdm(total=steps, desc=family, mininterval=10) as bar:
        for first, stage_steps, count in ((True, num_first, NUM_FIRST_SCENES), (False, steps - num_first, NUM_SCENES)):
            pixels, labels = prepare(train_garments, count, seed + first, first)
            taught = teach(teacher_model, pixels) if teacher_model else None
            order = torch.cat([torch.randperm(count) for _ in range(stage_steps * BATCH_SIZE // count + 1)])
            for chosen in order[: stage_steps * BATCH_SIZE].split(BATCH_SIZE):
                batch = normalise(pixels[chosen])
                if torch.rand(()) < 0.5:
                    batch = batch.flip(-1)
                loss = loss_of(model(pixel_values=batch), labels[chosen], None if taught is None else taught[chosen])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                bar.update()
                bar.set_postfix(loss=f"{np.mean(losses[-200:]):.3f}", refresh=False)
    save(model, out / family)


def save(model: transformers.PreTrainedModel, folder: Path) -> None:
    """Write model and processor, then measure what was written, as it will be loaded."""
    model.half().save_pretrained(folder)
    size = {"height": SCENE_SIZE, "width": SCENE_SIZE}
    half = [0.5, 0.5, 0.5]
    transformers.ViTImageProcessor(size=size, image_mean=half, image_std=half).save_pretrained(folder)
    by_label = evaluate(type(model).from_pretrained(folder, dtype=torch.float32))
    result = {
        "average_precision": {label: round(value, 4) for label, value in zip(LABELS, by_label, strict=True)},
        "macro_average_precision": round(float(np.mean(by_label)), 4),
        "parameters": model.num_parameters(),
        "bytes": (folder / "model.safetensors").stat().st_size,
    }
    typer.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    app()
