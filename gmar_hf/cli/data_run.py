"""Running a survey or an evaluation for a command: what it is about, and how it is stopped."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gmar_hf.cli.app import tell
from gmar_hf.cli.interruption import INTERRUPTED, sigterm_as_control_c
from gmar_hf.cli.options import DataOptions
from gmar_hf.errors import ArgumentError
from gmar_hf.utils.checks import check_choice
from gmar_hf.utils.text import printable

if TYPE_CHECKING:
    from accelerate import Accelerator


def run_over_data(
    function: Callable[..., Any],
    options: DataOptions,
    *,
    doing: str,
    num_scenes: int,
    settings: Mapping[str, Any],
) -> Any:
    """Call `survey` or `evaluate` for a command, in this process and those that were launched with it.

    Args:
        function (`Callable`): [`survey`] or [`evaluate`].
        options (`DataOptions`): What was typed.
        doing (`str`): What is said to be done with the model.
        num_scenes (`int`): How many scenes `--demo` has without a `--limit`.
        settings (`Mapping[str, Any]`): The function's arguments beyond model and data.

    Returns:
        What the function returned, in the first process; None in all others.

    Raises:
        typer.Exit: With code 130, after Ctrl-C or SIGTERM.
    """
    from gmar_hf.runs.processes import joined, together

    def prepare() -> tuple[Any, ...]:
        return *_find_subject(options, num_scenes), _read_label_map(options.label_map)

    accelerator = joined(None)
    try:
        with _interruptible(accelerator, options.out):
            model, image_processor, data, names, label_map = together(prepare)
            if accelerator.is_main_process:
                tell(f"{doing} {names.get('model_id', options.model)} on {names.get('data_id', data)} ...")
            result = function(
                model,
                data,
                image_processor,
                output_dir=options.out,
                label_map=label_map,
                accelerator=accelerator,
                **names,
                **settings,
            )
        return result if accelerator.is_main_process else None
    finally:
        with suppress(RuntimeError):  # of a connection that a process which is gone has left broken
            accelerator.end_training()


def _find_subject(options: DataOptions, num_scenes: int) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Load model and image processor; return them, the data, and what the results call them."""
    from gmar_hf import demo
    from gmar_hf.cli.loading import load_classifier, load_image_processor

    model, data, name = options.model, options.data, options.demo
    if name is not None:
        if model is not None or data is not None or options.label:
            raise ArgumentError("`--demo` must not be given together with `--model`, `--data` or `--label`. Drop one.")
        check_choice("--demo", name, demo.MODELS)
        num_scenes = options.limit or num_scenes
        names = {"model_id": f"gmar_hf.demo.load({name!r})", "data_id": f"gmar_hf.demo.scenes({num_scenes})"}
        return *demo.load(name), demo.scenes(num_scenes), names
    if model is None or data is None:
        raise ArgumentError("`--model` and `--data` must both be given; one is missing. Or pass `--demo vit`.")
    classifier = load_classifier(
        model, options.revision, labels=options.label, hypothesis_template=options.hypothesis_template
    )
    image_processor = load_image_processor(model, options.revision)
    return classifier, image_processor, data, {"model_revision": options.revision}


def _read_label_map(path: Path | None) -> Mapping[str, str | int] | None:
    if path is None:
        return None
    try:
        label_map = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArgumentError(
            f"`--label-map` must be a JSON file; got {str(path)!r} ({reason}). Check the path and what is in it."
        ) from error
    if not isinstance(label_map, dict) or not all(isinstance(value, str | int) for value in label_map.values()):
        raise ArgumentError(
            f"`--label-map` must be a JSON object from folder names to labels or indices; got {str(path)!r}, "
            'which is something else. Write it like {"n01440764": "tench, Tinca tinca"}.'
        )
    return label_map


@contextmanager
def _interruptible(accelerator: "Accelerator", out: Path) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block with code 130; of several processes the first one says how to go on.

    What has been done is said too where the `KeyboardInterrupt` tells it.
    """
    from transformers.utils import logging

    from gmar_hf.runs.run_folder import CHECKPOINTS

    if not accelerator.is_main_process:
        logging.set_verbosity(logging.CRITICAL)
    try:
        with sigterm_as_control_c():
            yield
    except KeyboardInterrupt as interruption:
        if accelerator.is_main_process:
            done = f"{interruption}. " if str(interruption) else ""
            is_saved = any((out / CHECKPOINTS).glob("*.safetensors"))
            then = f"goes on from {printable(out)}" if is_saved else "starts anew: nothing is saved yet"
            typer.echo(f"gmar-hf: interrupted. {done}The same command {then}.", err=True)
        raise typer.Exit(INTERRUPTED) from None
