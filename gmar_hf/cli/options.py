"""What the commands over a data set share: what they are about, and how they are stopped."""

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from accelerate import Accelerator
from transformers.utils import logging as transformers_logging

from gmar_hf import demo
from gmar_hf.cli.loading import load_image_processor, load_model
from gmar_hf.errors import ArgumentError
from gmar_hf.utils.text import printable


def find_subject(
    model: str | None, revision: str | None, data: str | None, demo_name: str | None, num_scenes: int
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Model, image processor, data, and what the results call them.

    Args:
        model, revision (`str`, *optional*): What to load.
        data (`str`, *optional*): Handed on.
        demo_name (`str`, *optional*): In place of both: a bundled model, on scenes.
        num_scenes (`int`): How many.

    Raises:
        ArgumentError: If neither or both are named, or the model cannot be loaded.
    """
    if demo_name is not None:
        if model is not None or data is not None:
            raise ArgumentError("`--demo` must not be given together with `--model` or `--data`. Drop one.")
        if demo_name not in demo.MODELS:
            raise ArgumentError(f"`--demo` must be one of {', '.join(demo.MODELS)}; got {demo_name!r}.")
        names = {"model_id": f"gmar_hf.demo.load({demo_name!r})", "data_id": f"gmar_hf.demo.scenes({num_scenes})"}
        return *demo.load(demo_name), demo.scenes(num_scenes), names
    if model is None or data is None:
        raise ArgumentError("`--model` and `--data` must both be given; one is missing. Or pass `--demo vit`.")
    classifier = load_model(model, revision)
    return classifier, load_image_processor(model, revision), data, {"model_revision": revision}


def read_label_map(path: Path | None) -> Mapping[str, str | int] | None:
    """What `--label-map` holds; None without one.

    Raises:
        ArgumentError: If it is no JSON object from names to labels.
    """
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArgumentError(
            f"`--label-map` must be a JSON file; got {str(path)!r} ({reason}). Check the path and what is in it."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, str | int) for value in found.values()):
        raise ArgumentError(
            f"`--label-map` must be a JSON object from folder names to labels or indices; got {str(path)!r}, "
            'which is something else. Write it like {"n01440764": "tench, Tinca tinca"}.'
        )
    return found


@contextmanager
def interruptible(accelerator: Accelerator, out: Path) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block, and say how to go on; of several processes the first one says so.

    What has been done is said too where the `KeyboardInterrupt` tells it.

    Raises:
        typer.Exit: With code 130, after either.
    """
    if not accelerator.is_main_process:
        transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers ask thus to stop
    try:
        yield
    except KeyboardInterrupt as interruption:
        if accelerator.is_main_process:
            done = f"{interruption}. " if str(interruption) else ""
            typer.echo(f"gmar-hf: interrupted. {done}The same command goes on from {printable(out)}.", err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


class SurveyTarget(StrEnum):
    """What is explained of an image of a data set."""

    PREDICTED = "predicted"
    LABEL = "label"


SubjectOption = Annotated[str | None, typer.Option("--model", "-m", help="Hub id or folder of a classifier.")]
DataOption = Annotated[
    str | None, typer.Option("--data", "-d", help="Folder of images, flat or one a class, or a data set's id.")
]
DemoOption = Annotated[
    str | None, typer.Option(help="In place of --model and --data: vit, deit or beit, on its own scenes.")
]
SplitOption = Annotated[str | None, typer.Option(help="Of a data set with several.")]
DataRevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit of the data set.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="So many images only.")]
ShuffleOption = Annotated[int | None, typer.Option(min=0, help="Draw the order of the images.")]
NoLabelsOption = Annotated[bool, typer.Option("--no-labels", help="Do not look at folder names or labels.")]
WorkersOption = Annotated[int, typer.Option(min=0, help="Processes that read images, for each that explains.")]
UnreadableOption = Annotated[float, typer.Option(help="Share of the images that may be unreadable.")]
NoResumeOption = Annotated[bool, typer.Option("--no-resume", help="Delete checkpoints and start anew.")]
LabelMapOption = Annotated[
    Path | None, typer.Option(help="JSON object from folder or class names to the model's labels.")
]
TargetOption = Annotated[SurveyTarget, typer.Option(help="Explain each image's top logit, or each of its labels.")]
