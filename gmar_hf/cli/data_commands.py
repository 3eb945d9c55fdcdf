"""The commands over a data set: report, evaluate, compare."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .app import JsonOption, RevisionOption, app, echo_json


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


@app.command()
def report(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoints and the report.")],
    model: SubjectOption = None,
    data: DataOption = None,
    demo: DemoOption = None,
    split: SplitOption = None,
    revision: RevisionOption = None,
    data_revision: DataRevisionOption = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="Do not store a data set of the Hub first.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images explained at once.")] = 32,
    target: TargetOption = SurveyTarget.PREDICTED,
    limit: LimitOption = None,
    shuffle_seed: ShuffleOption = None,
    label_map: LabelMapOption = None,
    no_labels: NoLabelsOption = False,
    num_workers: WorkersOption = 0,
    save_every: Annotated[int, typer.Option(min=1, help="Batches of a process between checkpoints.")] = 20,
    until_stable: Annotated[
        float | None, typer.Option(help="Stop when standard errors are below this share of the largest mean.")
    ] = None,
    max_unreadable: UnreadableOption = 0.01,
    no_resume: NoResumeOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a finished report.")] = False,
    push: Annotated[str | None, typer.Option(help="Repository on the Hub to push the report to.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    license: Annotated[str | None, typer.Option(help="The report's own licence, such as cc-by-4.0.")] = None,
    overwrite_card: Annotated[
        bool, typer.Option("--overwrite-card", help="Replace a README.md that was written by hand, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Which heads matter over a data set: a report for the Hub. Also under accelerate launch and torchrun."""
    from .reporting import make_report

    summary = make_report(
        model=model,
        revision=revision,
        data=data,
        demo_name=demo,
        label_map=label_map,
        out=out,
        push=push,
        private=private,
        settings={
            "split": split,
            "data_revision": data_revision,
            "streaming": streaming,
            "batch_size": batch_size,
            "target": target.value,
            "limit": limit,
            "shuffle_seed": shuffle_seed,
            "use_labels": not no_labels,
            "num_workers": num_workers,
            "save_every": save_every,
            "until_stable": until_stable,
            "max_unreadable": max_unreadable,
            "resume": not no_resume,
            "force": force,
            "license": license,
            "overwrite_card": overwrite_card,
        },
        show=not as_json,
    )
    if as_json and summary is not None:
        echo_json(summary)


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoints and results.")],
    model: SubjectOption = None,
    data: DataOption = None,
    demo: DemoOption = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Maps, between commas or repeated: contribution, masked-contribution, partition-contribution, "
            "gradient-rollout, gmar-l1, gmar-l2, rollout, attention, legrad, gmar-shuffled, edges, centre-blob, "
            "random (these by default), gmar-uniform; with pip install 'gmar-hf[compare]' integrated-gradients, "
            "occlusion, input-x-gradient, grad-cam; or module:function of your own.",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="Functions of gmar_hf.metrics, between commas or repeated: insertion, deletion, "
            "insertion_minus_deletion, pointing_game, energy_pointing_game, pixel_average_precision, iou, "
            "energy_on_other (these five with masks), class_sensitivity, sparseness (these by default), "
            "positive_perturbation, negative_perturbation, saco, average_drop, average_increase, average_gain.",
        ),
    ] = None,
    baselines: Annotated[
        list[str] | None,
        typer.Option(
            help="What hidden patches show: blur, zero, other (these by default), mean, black; between commas or "
            "repeated.",
        ),
    ] = None,
    target: TargetOption = SurveyTarget.PREDICTED,
    masks: Annotated[
        Path | None, typer.Option(help="Folder with a mask for each image, of the same relative path.")
    ] = None,
    split: SplitOption = None,
    revision: RevisionOption = None,
    data_revision: DataRevisionOption = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help='Images explained at once; "other" fills with the one before in the batch.')
    ] = 16,
    num_steps: Annotated[int, typer.Option(min=1, help="Of insertion and deletion.")] = 16,
    limit: LimitOption = None,
    shuffle_seed: ShuffleOption = None,
    label_map: LabelMapOption = None,
    no_labels: NoLabelsOption = False,
    num_workers: WorkersOption = 0,
    max_unreadable: UnreadableOption = 0.01,
    no_resume: NoResumeOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace finished results.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Which map to believe: measure maps side by side on a data set. Also under accelerate launch and torchrun."""
    from .evaluating import make_evaluation

    summary = make_evaluation(
        model=model,
        revision=revision,
        data=data,
        demo_name=demo,
        label_map=label_map,
        methods=methods,
        metrics=metrics,
        baselines=baselines,
        out=out,
        settings={
            "masks": masks,
            "split": split,
            "data_revision": data_revision,
            "target": target.value,
            "batch_size": batch_size,
            "num_steps": num_steps,
            "limit": limit,
            "shuffle_seed": shuffle_seed,
            "use_labels": not no_labels,
            "num_workers": num_workers,
            "max_unreadable": max_unreadable,
            "resume": not no_resume,
            "force": force,
        },
        show=not as_json,
    )
    if as_json and summary is not None:
        echo_json(summary)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Folder or Hub id of a report.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Folder or Hub id of another.")],
    as_json: JsonOption = False,
) -> None:
    """Compare two reports: do they rank the heads alike, and which heads moved?"""
    from .comparing import compare_reports

    summary = compare_reports(first, second, show=not as_json)
    if as_json:
        echo_json(summary)
