"""Try every architecture of transformers on a tiny random model, and write models.md into examples/.

    python examples/benchmarks/models.py
    python examples/benchmarks/models.py --no-write

The same table as `gmar-hf check --all` prints. What needs a package that is not installed is said to.
"""

from pathlib import Path
from typing import Annotated

import transformers
import typer
from transformers.utils import logging

from gmar_hf.explanation.architectures import ArchitectureCheck, architectures, check_architecture
from gmar_hf.explanation.methods import METHODS
from gmar_hf.utils.files import replacing

DOCUMENT = Path(__file__).parents[1] / "models.md"
INTRODUCTION = """# Which models are explained

Written by `python examples/benchmarks/models.py`, not by hand, with transformers {version}; `gmar-hf check --all`
prints it for yours.

Every class that transformers has for the task, as a tiny random model made from its config, in float32: which methods
give a map, and the largest error of logits, head scores (L1 and L2), contributions, head maps and the maps of all
methods against explicit attention in float64, as a share of the tensor's largest magnitude. The gradient is held
against finite differences of the logits, too. What is not served is refused, and the words of the error stand beside
it: of a class that some methods serve, those by which the others are refused.
Of models that compare images with texts `gmar_hf.text_classifier` is tried, with two texts. "all" are
{methods}.

Whether *your* checkpoint is served, `gmar-hf check --model me/my-model` says.
"""
TITLES = {
    "image-classification": "Image classification (`AutoModelForImageClassification`)",
    "zero-shot-image-classification": "Zero-shot image classification (`AutoModelForZeroShotImageClassification`)",
}


def row(check: ArchitectureCheck) -> str:
    """Return the line of the table that tells of one architecture."""
    methods = "all" if len(check.methods) == len(METHODS) else ", ".join(check.methods) or "-"
    error = "-" if check.error is None else f"{check.error:.0e}"
    words = check.reason.replace("|", "\\|")
    return f"| {check.architecture.name} | {methods if check.is_right else '**wrong**'} | {error} | {words} |"


def page(checks: list[ArchitectureCheck]) -> str:
    """Return the document."""
    methods = ", ".join(f"`{method}`" for method in METHODS)
    parts = [INTRODUCTION.format(version=transformers.__version__, methods=methods)]
    for task, title in TITLES.items():
        of_task = [check for check in checks if check.architecture.task == task]
        num_served, num_tried = sum(bool(check.methods) for check in of_task), sum(check.is_tried for check in of_task)
        table = ["| class | methods | worst error | in words |", "| --- | --- | --- | --- |", *map(row, of_task)]
        served = f"{num_served} of {num_tried} that could be tried are served."
        parts.append(f"## {title}\n\n{served}\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


def main(
    write: Annotated[bool, typer.Option(help="Write models.md, rather than print it.")] = True,
) -> None:
    logging.set_verbosity_error()
    text = page([check_architecture(architecture) for architecture in architectures()])
    if not write:
        typer.echo(text)
        return
    with replacing(DOCUMENT) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    typer.run(main)
