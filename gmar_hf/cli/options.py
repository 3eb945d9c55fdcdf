"""The options that several commands have; `DataOptions` is what every command over a data set takes."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="MODEL", help="Hub id or folder of an image classifier.")
]
RevisionOption = Annotated[
    str | None, typer.Option(metavar="REVISION", help="Branch, tag or commit of the model on the Hub.")
]
DeviceOption = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="Such as cpu or cuda:1; a GPU by default, where there is one.")
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT", help="Text to compare images with, for a CLIP or SigLIP; repeat it for each of several."
    ),
]
TemplateOption = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help='What each --label is put into; by default "This is a photo of {}.".'),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]


class ExplainedTarget(StrEnum):
    """What is explained of each image of a data set."""

    PREDICTED = "predicted"
    LABEL = "label"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What a command over a data set is about, and how it goes through the images."""

    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for checkpoints and what comes out.")
    ]
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="Hub id or folder of a classifier.")
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            "--data", "-d", metavar="DATA", help="Folder of images, flat or one a class, or a data set's id."
        ),
    ] = None
    demo: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="In place of --model and --data: vit, deit or beit, on its own scenes."),
    ] = None
    label: LabelOption = None
    hypothesis_template: TemplateOption = None
    split: Annotated[str | None, typer.Option(metavar="NAME", help="The split, of a data set with several.")] = None
    revision: RevisionOption = None
    data_revision: Annotated[
        str | None, typer.Option(metavar="REVISION", help="Branch, tag or commit of the data set.")
    ] = None
    target: Annotated[ExplainedTarget, typer.Option(help="Explain each image's top logit, or each of its labels.")] = (
        ExplainedTarget.PREDICTED
    )
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Take so many images only.")] = None
    shuffle_seed: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Draw the order of the images, so that --limit takes of all classes."),
    ] = None
    label_map: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON object from folder or class names to the model's labels.")
    ] = None
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Do not look at folder names or labels.")] = False
    num_workers: Annotated[
        int, typer.Option(metavar="N", min=0, help="Processes that read images, for each that explains.")
    ] = 0
    max_unreadable: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the images that may be unreadable, rounded up.")
    ] = 0.01
    no_resume: Annotated[bool, typer.Option("--no-resume", help="Delete checkpoints and start anew.")] = False
    force: Annotated[bool, typer.Option("--force", help="Replace what a finished run left in the folder.")] = False
    as_json: JsonOption = False

    def settings(self, *names: str) -> dict[str, Any]:
        """Return arguments of [`survey`] and [`evaluate`].

        Args:
            names (`str`): Options that one command has beyond these, called as the arguments are.
        """
        same = ("split", "data_revision", "limit", "shuffle_seed", "num_workers", "max_unreadable", "force", *names)
        return {
            "target": self.target.value,
            "use_labels": not self.no_labels,
            "resume": not self.no_resume,
            **{name: getattr(self, name) for name in same},
        }
