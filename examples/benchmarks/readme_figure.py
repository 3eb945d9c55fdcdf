"""Draw the figure of README.md: a photograph, two labels, the recommended maps and GMAR's side by side.

    python examples/benchmarks/readme_figure.py --model my-classifier

The figure that stands there comes from the classifier of `examples/benchmarks/README.md` (DINOv2-small, 99 classes).
"""

from pathlib import Path
from typing import Annotated

import typer
from transformers import pipeline

import gmar_hf  # makes the task known to transformers
from gmar_hf.utils.files import replacing

EXAMPLES = Path(__file__).parents[1]
METHODS = ["recommended", "gmar"]


def main(
    model: Annotated[str, typer.Option(help="Folder or id of an image classifier.")],
    photo: Annotated[Path, typer.Option(help="What is explained.")] = EXAMPLES / "photos" / "flamingo.jpg",
    labels: Annotated[str, typer.Option(help="Labels to explain, between commas; best ranked first.")] = "",
    out: Annotated[Path, typer.Option(help="Where the figure goes.")] = EXAMPLES / "why-umbrella.png",
) -> None:
    """Draw a photograph's maps for the labels given, or for the two that the model ranks first."""
    explain = pipeline("gmar-explanation", model=model)
    asked = {"target": labels.split(",")} if labels else {"top_k": 2}
    results = explain(str(photo), method=METHODS, **asked)
    figure = gmar_hf.plotting.plot_explanation(str(photo), results)
    with replacing(out) as temporary:
        figure.savefig(temporary, dpi=90)
    typer.echo(f"{out.name}: " + ", ".join(f"{result['label']} {result['score']:.2f}" for result in results[::2]))


if __name__ == "__main__":
    typer.run(main)
