"""Write costs.md into examples/: what explanations cost, as ratios, each table of one run, on one machine.

    python examples/benchmarks/costs.py --threads 1                  # about two hours on one core
    python examples/benchmarks/costs.py --no-write --cells vit-l/384/8 --long-cells "" --no-peers --no-survey
    python examples/benchmarks/costs.py --keep cells                 # goes on where it was stopped, cell by cell
    python examples/benchmarks/costs.py --sample                     # prints a page of tiny models, in seconds

A cell is a model, the edge of its images in pixels and a batch size, such as vit-b/224/8: in `--cells` everything is
measured, in `--long-cells` all but the other paths than `recommended`. Models are vit-s, vit-b and vit-l.
"""

import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import transformers
import typer
from benchmark_survey import images_a_second
from candidates import FLOOR, FORWARD, SINGLE_PASS, Candidates, candidates_of, is_path, make_images, make_model, named
from peers import OURS, PEERS, calls_of, is_missing
from timing import Seconds, keep_freed_memory, paired, peak_of, ratios

import gmar_hf
from gmar_hf.utils.files import replacing
from gmar_hf.utils.text import quantity

IMPORTS = ["gmar_hf.evaluation.maps.libraries", "gmar_hf.runs.processes", "transformers.models.vit.modeling_vit"]
DOCUMENT = Path(__file__).parents[1] / "costs.md"
INTRODUCTION = """# What explanations cost

Written not by hand but by

```bash
{command}
```

on {date}: {machine}. torch {torch} with {threads}, transformers {transformers}, gmar_hf {gmar_hf}, float32. ViTs with
patches of 16 pixels and random weights.

Read the ratios, not the seconds: candidates run in turn, round by round, and each ratio is the median of those of the
rounds, with their range in brackets, which tells how busy the machine was. What is timed keeps the memory that it sets
free (`mallopt`): pages that the system gives anew would be paid by whoever comes to them first.

The **floor** is one SDPA forward and one backward for activations only, in bare torch: the least that a gradient of
every layer costs. A **forward** is one without gradients. **Memory** is the peak of a process of its own above the
loaded model. Every method makes its map; the {num_single} of one pass, made at once, are {single}.
"Logits and gap" are two forwards that a path makes beside its passes. Above each table stands the commit of the code
that was measured. What a GPU costs, [benchmark_gpu.py](benchmarks/benchmark_gpu.py) measures; nothing here was
measured on one.
"""


class Cell(NamedTuple):
    """One model, edge of its images in pixels, and batch size."""

    model: str
    image_size: int
    batch_size: int

    @property
    def name(self) -> str:
        return f"{self.model.upper().replace('VIT', 'ViT')}/16"

    @property
    def title(self) -> str:
        return f"{self.name}, {self.image_size} px, batch {self.batch_size}"

    @property
    def num_tokens(self) -> int:
        return (self.image_size // 16) ** 2 + 1


WARM = Cell("tiny", 32, 1)  # what is loaded and compiled once is, when all has run in it


class Costs(NamedTuple):
    """What was measured in a cell, by candidate: seconds of every round, GiB above the model; and of which code."""

    seconds: Seconds
    gibibytes: dict[str, float]
    commit: str  # of the code that was measured


def cells_of(words: str) -> list[Cell]:
    """Read cells between commas.

    Example:
        >>> cells_of("vit-b/224/8")
        [Cell(model='vit-b', image_size=224, batch_size=8)]
    """
    parts = [word.strip().split("/") for word in words.split(",") if word.strip()]
    return [Cell(model, int(size), int(batch)) for model, size, batch in parts]


def candidates_in(cell: Cell, is_long: bool) -> Candidates:
    """The candidates of a cell, in memory."""
    model = make_model(cell.image_size, cell.model)
    candidates = candidates_of(model, make_images(model, cell.batch_size))
    left_out = {name for name in candidates if is_long and is_path(name)} - {named("recommended")}
    return {name: call for name, call in candidates.items() if name not in left_out}


def measured(cell: Cell, is_long: bool, rounds: int, threads: int) -> Costs:
    """Measure a cell: all times in this process, each peak in one of its own."""
    candidates = candidates_in(cell, is_long)
    candidates[FLOOR]()  # takes the memory for the first time
    seconds = paired(rounds, is_warm=True, **candidates)
    names = list(candidates)
    del candidates  # and the model, whose memory others may need
    gibibytes = {name: in_own_process(peak_above_model, cell, name, threads) for name in names}
    return Costs(seconds, gibibytes, _commit())


def kept(folder: Path | None, cell: Cell, measure: Callable[[], Costs], **how: Any) -> Costs:
    """What was measured in a cell: read where an earlier run on this machine has kept it, else measured, and kept.

    A cell of more rounds than others is kept by a run of it alone, before; its table tells how many they are.
    """
    about = {**how, "machine": _processor(), "torch": torch.__version__, "gmar_hf": gmar_hf.__version__}
    path = None if folder is None else folder / f"{cell.model}-{cell.image_size}-{cell.batch_size}.json"
    if path is not None and path.is_file():
        content = json.loads(path.read_text())
        if content["about"] != about:
            raise typer.BadParameter(f"{path} was measured otherwise: {content['about']}", param_hint="--keep")
        return Costs(content["seconds"], content["gibibytes"], content["commit"])
    typer.echo(f"{cell.title} ...", err=True)
    costs = measure()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"about": about, **costs._asdict()}))
    return costs


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process, forked from one that has done nothing but the imports that take long."""
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(function, *arguments).result()


def peak_above_model(cell: Cell, name: str, threads: int) -> float:
    """GiB that a candidate takes beyond what the process holds with the model and the images loaded."""
    torch.set_num_threads(threads)
    candidates_in(WARM, is_long=False)[name]()  # loads what is loaded once
    call = candidates_in(cell, is_long=False)[name]
    before = peak_of(lambda: None, "cpu")
    return peak_of(call, "cpu") - before


def section(cell: Cell, costs: Costs) -> str:
    """The table of a cell."""
    seconds, gibibytes, commit = costs
    floor = statistics.median(seconds[FLOOR])
    rounds = quantity(len(seconds[FLOOR]), "round")
    lines = [
        f"## {cell.title}\n",
        f"{cell.num_tokens} tokens; {rounds}; a floor takes {floor:.2f} s; code of {commit}.\n",
        "| | time, in floors | in forwards | memory, MiB | in floors | in forwards |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, peak in gibibytes.items():
        shares = [f"{peak / gibibytes[base]:.2f}" if gibibytes[base] > 0 else "-" for base in (FLOOR, FORWARD)]
        times = [spread(ratios(seconds, name, base)) for base in (FLOOR, FORWARD)]
        lines.append(f"| {name} | {times[0]} | {times[1]} | {peak * 1024:.0f} | {shares[0]} | {shares[1]} |")
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    """A median with its range.

    Example:
        >>> spread([1.0, 3.0, 1.5])
        '1.50 (1.00 to 3.00)'
    """
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def in_short(found: dict[Cell, Costs]) -> str:
    """What a reader wants to know first: the least and the most, over the cells, that some methods cost."""
    lines = ["## In short\n", "| | in forwards | memory, in those of a forward |", "| --- | --- | --- |"]
    for name in ("gmar", "contribution", "removal", named("recommended")):
        costs = [each for each in found.values() if name in each.seconds]
        times = [statistics.median(ratios(each.seconds, name, FORWARD)) for each in costs]
        peaks = [each.gibibytes[name] / each.gibibytes[FORWARD] for each in costs if each.gibibytes[FORWARD] > 0]
        cells = [f"{min(values):.1f} to {max(values):.1f}" if values else "-" for values in (times, peaks)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def growth(found: dict[Cell, Costs]) -> Iterator[str]:
    """The slopes over tokens, of every model and batch size of which several sizes of images were measured."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in found:
        groups.setdefault((cell.model, cell.batch_size), []).append(cell)
    for (_, batch_size), cells in groups.items():
        if len(cells) < 2:
            continue
        yield f"\n{cells[0].name}, batch {batch_size}, {', '.join(str(cell.num_tokens) for cell in cells)} tokens:\n"
        yield "| | time | memory |\n| --- | ---: | ---: |"
        for name in found[cells[0]].seconds:
            of_name = [cell for cell in cells if name in found[cell].seconds]
            if len(of_name) < 2:
                continue
            times = slope((cell.num_tokens, statistics.median(found[cell].seconds[name])) for cell in of_name)
            peaks = slope((cell.num_tokens, found[cell].gibibytes[name]) for cell in of_name)
            yield f"| {name} | {times} | {peaks} |"


def slope(points: Iterable[tuple[float, float]]) -> str:
    """The slope of the logarithm of one number over that of another, by least squares; a dash where there is none.

    Example:
        >>> slope([(1, 3), (2, 12), (4, 48)])
        '2.00'
    """
    logs = [(math.log(x), math.log(y)) for x, y in points if y > 0]
    return f"{statistics.linear_regression(*zip(*logs, strict=True)).slope:.2f}" if len(logs) > 1 else "-"


def beside_peers(cell: Cell, rounds: int) -> Iterator[str]:
    """The table of all that explain one model, ours first."""
    ours = candidates_in(cell, is_long=False)
    gives = {named(name): words for name, words in OURS.items()}
    paired(0, **calls_of(*WARM))
    calls = {name: ours[name] for name in (FLOOR, FORWARD, *gives)} | calls_of(*cell)
    seconds = paired(rounds, is_warm=True, **calls)
    gives |= {name: peer.gives for name, peer in PEERS.items()}
    yield f"{cell.title}; {quantity(rounds, 'round')}.\n"
    yield "| | time, in floors | in forwards | gives |\n| --- | ---: | ---: | --- |"
    for name in seconds:
        times = [spread(ratios(seconds, name, base)) for base in (FLOOR, FORWARD)]
        who = f"gmar_hf, {name}" if name in ours and name not in (FLOOR, FORWARD) else name
        yield f"| {who} | {times[0]} | {times[1]} | {gives.get(name, '')} |"
    for name, peer in PEERS.items():
        if is_missing(peer):
            yield f"\n{name} is left out: `{peer.needs}` is not installed."


def of_surveys(num_images: int, rounds: int) -> Iterator[str]:
    """The lines about surveys over data."""
    speeds = images_a_second(num_images, rounds)
    one, two = (statistics.median(each) for each in zip(*speeds, strict=True))
    yield (
        f"A survey of {num_images} scenes by the bundled ViT, images a second: {one:.0f} with one process of one "
        f"thread, {two:.0f} with two; {spread([two / one for one, two in speeds])} times as many "
        "(`benchmark_survey.py processes`)."
    )


def introduction(threads: int) -> str:
    return INTRODUCTION.format(
        command=shlex.join(["python", "examples/benchmarks/costs.py", *sys.argv[1:]]),
        date=datetime.now(UTC).date(),
        machine=f"{os.cpu_count()} cores of {_processor()}",
        torch=torch.__version__,
        threads=quantity(threads, "thread"),
        transformers=transformers.__version__,
        gmar_hf=gmar_hf.__version__,
        num_single=len(SINGLE_PASS),
        single=", ".join(SINGLE_PASS),
    )


def _commit() -> str:
    """The commit of this checkout, in short."""
    command = ["git", "-C", str(DOCUMENT.parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or f"version {gmar_hf.__version__}"


def _processor() -> str:
    """The name of the processor, as Linux knows it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


app = typer.Typer(add_completion=False, help=__doc__)
Cells = Annotated[str, typer.Option(help="Between commas, such as vit-b/224/8.")]


@app.command()
def main(
    cells: Cells = "vit-s/224/1,vit-s/384/1,vit-b/224/1,vit-b/224/8",
    long_cells: Cells = "vit-s/512/1,vit-s/1024/1,vit-s/224/8,vit-s/224/32,vit-b/512/1,vit-l/224/1,"
    "vit-b/224/32,vit-l/224/8,vit-l/512/1",
    rounds: Annotated[int, typer.Option(min=1, help="Times that everything is measured.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
    peers: Annotated[bool, typer.Option(help="Measure what others make, too.")] = True,
    survey: Annotated[bool, typer.Option(help="Measure surveys of one and two processes, too.")] = True,
    write: Annotated[bool, typer.Option(help="Write costs.md, rather than print it.")] = True,
    keep: Annotated[
        Path | None, typer.Option(help="A folder for cells that are measured, where a run goes on.")
    ] = None,
    sample: Annotated[
        bool, typer.Option(help="Print a page of tiny models, which shows that all of it runs.")
    ] = False,
) -> None:
    """Measure all and write the page."""
    if sample:
        cells, long_cells, rounds, write = "tiny/32/1", "tiny/64/1", 1, False
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    paired(0, **candidates_in(WARM, is_long=False))
    found = {}
    for is_long, cell in [(False, each) for each in cells_of(cells)] + [(True, each) for each in cells_of(long_cells)]:
        measure = partial(measured, cell, is_long, rounds, threads)
        found[cell] = kept(keep, cell, measure, is_long=is_long, threads=threads)
    parts = [introduction(threads), in_short(found), *(section(*each) for each in found.items())]
    if slopes := list(growth(found)):
        parts.append(
            "\n".join(["## How costs grow\n", "The slope of the logarithm over that of the tokens.", *slopes, ""])
        )
    if peers:
        lines = beside_peers(Cell("tiny", 32, 2) if sample else Cell("vit-b", 224, 2), rounds)
        parts.append("\n".join(["## Beside others\n", *lines, ""]))
    if survey:
        parts.append("\n".join(["## Over data\n", *of_surveys(64 if sample else 3000, rounds), ""]))
    page = "\n".join(parts)
    if not write:
        typer.echo(page)
        return
    with replacing(DOCUMENT) as temporary:
        temporary.write_text(page)


if __name__ == "__main__":
    keep_freed_memory()  # in this process of its own
    app()
