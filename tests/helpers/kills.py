"""Killing a command over data at any moment, and starting it again until it is done."""

import contextlib
import itertools
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass

from tests.helpers.survey_processes import Forks, saved, wait_until


@dataclass(frozen=True, kw_only=True)
class Killed:
    """A command that is killed.

    Attributes:
        command: Its name.
        checkpoints: The names of its checkpoints, as a pattern.
        last: Which file of its results comes last.
        save_every: Values of `--save-every` to draw from; none where it has no such option.
    """

    command: str
    checkpoints: str
    last: str
    save_every: tuple[int, ...] = ()


SURVEY = Killed(command="report", checkpoints="rank-*", last="config.json", save_every=(1, 2))
EVALUATION = Killed(command="evaluate", checkpoints="batch-*", last="results.json")


class Moments:
    """Conditions on what a command that has just been started does in its folder."""

    def __init__(self, killed, out, delay):
        self._killed, self._out, self._time = killed, out, time.monotonic() + delay
        before = [*out.rglob(".*"), *out.glob(killed.last)]
        self._before = {path: path.stat().st_mtime_ns for path in before}

    def _is_new(self, pattern):
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile
            return any(self._before.get(path) != path.stat().st_mtime_ns for path in self._out.glob(pattern))
        return False

    def starting(self):
        return time.monotonic() > self._time

    def between_checkpoints(self):
        return time.monotonic() > self._time and any(self._out.glob(f"checkpoints/{self._killed.checkpoints}"))

    def writing_a_checkpoint(self):
        return self._is_new(f"checkpoints/.gmar_hf-{self._killed.checkpoints}")

    def writing_the_results(self):
        return self._is_new(f".gmar_hf-{self._killed.last.partition('.')[0]}-*")

    def deleting_the_checkpoints(self):
        return self._is_new(self._killed.last)


MOMENTS = [name for name in vars(Moments) if not name.startswith("_")]


def kill_often(tmp_path, killed, arguments, check, *, seed, num_kills, numbers):
    """Kill runs at moments that a seed decides until so many kills are done; gives what was met, counted.

    Args:
        killed: What is killed.
        arguments: Of the command.
        check: Gets the folder of a run that is done, and the set of the numbers of processes that took part in turn.
        numbers: Of processes, to draw from for each start.
    """
    chance = random.Random(seed)
    met = Counter()
    for run_number in itertools.count():
        folder = tmp_path / f"run-{run_number}"
        out, used, kills_left = folder / "out", set(), min(chance.randint(1, 6), num_kills - met["kills"])
        while True:
            number = chance.choice(numbers)
            save_every = ["--save-every", chance.choice(killed.save_every)] if killed.save_every else []
            name = chance.choice(MOMENTS) if kills_left else None
            alone, patience = chance.random() < 0.5, chance.choice([0, 3])
            before = saved(folder)
            moments = Moments(killed, out, chance.uniform(0, 1.5))
            command = [*arguments, *save_every]
            with Forks(command, [folder] * number, pace=0.03, command=killed.command) as forks:
                if name and wait_until(getattr(moments, name), lambda: forks.alive):
                    time.sleep(chance.uniform(0, 0.05))
                    victims = [chance.randrange(number)] if alone else range(number)
                    hit = [rank for rank in victims if forks.processes[rank].exitcode is None]
                    forks.signal(signal.SIGKILL, victims)
                    if hit:
                        kills_left -= 1
                        met.update(["kills", name, f"{len(hit)} of {number}"])
                    if alone:  # sooner or later the launcher asks the others to stop
                        for process in forks.processes:
                            process.join(patience)
                        forks.signal(signal.SIGTERM)
                codes = forks.finish()
                assert not before.intersection(forks.taken), "explained again"
                assert codes == [0] * number or (name and any(codes)), forks.errors
                used.add(number)
            if (out / killed.last).exists() and not any((out / "checkpoints").glob(killed.checkpoints)):
                break
            met["resumed"] += 1
        if any(codes):  # killed when all was done but the removal of an empty folder
            shutil.rmtree(out / "checkpoints", ignore_errors=True)
        check(folder, used)
        met["results"] += 1
        if met["kills"] >= num_kills:
            return met
