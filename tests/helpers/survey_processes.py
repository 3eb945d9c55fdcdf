"""Surveys and evaluations in processes that can be killed.

They run under the real launchers, or are forked and put together as those would do it.

Importing everything takes a process seconds. So most of them are forked from one that has imported it all, and run
the command line as it is; their surroundings (RANK, WORLD_SIZE, ...) are those that a launcher makes.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch

from gmar_hf.cli import main
from gmar_hf.evaluation import evaluation_run
from gmar_hf.evaluation.evaluation_checkpoint import Measured
from gmar_hf.surveys import explained_batch, survey_run
from gmar_hf.surveys.survey_checkpoint import Part

PATIENCE = 300  # seconds after which a process counts as hanging
_LAUNCHERS_OWN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def environment(home):
    """For processes that share two cores, with an empty home and no network."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in _LAUNCHERS_OWN and not name.startswith(("ACCELERATE_", "HF_", "TORCHELASTIC_"))
    }
    return inherited | {
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_until(condition, alive, seconds=PATIENCE):
    """Whether the condition has come true before all was over."""
    end = time.monotonic() + seconds
    while not condition():
        if not alive():
            return condition()
        if time.monotonic() > end:
            raise TimeoutError(f"nothing has happened in {seconds} seconds")
        time.sleep(0.001)
    return True


def saved(*folders):
    """Numbers of the batches in the checkpoints of processes' folders, where none must stand twice."""
    # A folder that is listed while a file in it is replaced may name the file twice.
    found = [file for folder in folders for file in sorted(set((folder / "out" / "checkpoints").glob("[rb]a*-*")))]
    parts = [Part.load(file) if file.name.startswith("rank") else Measured.load(file) for file in found]
    numbers = [number for part in parts for number in part.done]
    assert len(numbers) == len(set(numbers))
    return set(numbers)


class Command:
    """A command in a process of its own, with all the processes that it starts."""

    def __init__(self, *arguments, folder, home):
        folder.mkdir(exist_ok=True)
        self._log = folder / f"log-{time.monotonic_ns()}"
        with self._log.with_suffix(".out").open("wb") as out, self._log.with_suffix(".err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, arguments)], cwd=folder, env=environment(home), stdout=out, stderr=err,
                stdin=subprocess.DEVNULL, start_new_session=True,
                # A shell starts background jobs with Ctrl-C ignored, and children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.kill()

    @property
    def alive(self):
        return self.process.poll() is None

    def kill(self):
        """Kill it with all the processes that it has started (launchers give them sessions of their own)."""
        try:
            everyone = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        except psutil.NoSuchProcess:
            everyone = []
        for one in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait(PATIENCE)
        psutil.wait_procs(everyone, PATIENCE)

    def finish(self):
        """Exit code, standard output and standard error."""
        code = self.process.wait(PATIENCE)
        return code, *(self._log.with_suffix(end).read_text(errors="replace") for end in (".out", ".err"))


TORCHRUN = ("-m", "torch.distributed.run", "--master_addr", "127.0.0.1")
ACCELERATE = (
    "-m", "accelerate.commands.launch", "--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no",
    "--main_process_ip", "127.0.0.1",
)  # fmt: skip


def torchrun(num_processes):
    return (*TORCHRUN, "--nproc_per_node", num_processes, "--master_port", free_port(), "-m", "gmar_hf", "report")


def accelerate_launch(num_processes, machine=None, num_machines=1, port=None):
    machines = () if machine is None else ("--machine_rank", machine)
    return (
        *ACCELERATE, "--num_processes", num_processes, "--num_machines", num_machines, *machines,
        "--main_process_port", port or free_port(), "-m", "gmar_hf", "report",
    )  # fmt: skip


def prepare_forks(home):
    """Have the process from which the others are forked import everything."""
    _FORKS.set_forkserver_preload(
        ["pytest", "tests.helpers.survey_processes", "datasets", "matplotlib.backends.backend_agg"]
    )
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment(home))
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


_FORKS = multiprocessing.get_context("forkserver")


class Forks:
    """`gmar-hf report`, or another command over data, in one process for each folder, which they start in.

    Args:
        arguments: Of the command.
        folders: One for each process; they are machines of their own where these differ.
        pace (`float`): Seconds that each batch, and each change of a file's name, takes longer; or one for each rank.
        control_c: What Ctrl-C does when the process starts.
        command: "report" or "evaluate".
    """

    def __init__(self, arguments, folders, pace=0.0, control_c=signal.default_int_handler, command="report"):
        self.folders = folders
        self._notes = folders[0] / "notes"
        self._notes.unlink(missing_ok=True)
        self._logs = []
        self.processes = []
        port = free_port()
        for rank, folder in enumerate(folders):
            folder.mkdir(exist_ok=True)
            local = [one for one, other in enumerate(folders) if other == folder]
            surroundings = {} if len(folders) == 1 else {
                "RANK": rank, "LOCAL_RANK": local.index(rank), "WORLD_SIZE": len(folders),
                "LOCAL_WORLD_SIZE": len(local), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            }  # fmt: skip
            self._logs.append(folders[0] / f"log-{rank}")
            process = _FORKS.Process(
                target=_run,
                args=(
                    [command, *map(str, arguments)], surroundings, folder, self._logs[-1], self._notes,
                    pace[rank] if isinstance(pace, tuple) else pace, control_c,
                ),
                daemon=True,
            )  # fmt: skip
            self.processes.append(process)
        for process in self.processes:
            process.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.join(PATIENCE)
            process.close()

    @property
    def alive(self):
        return any(process.exitcode is None for process in self.processes)

    def signal(self, number, ranks=None):
        for rank, process in enumerate(self.processes):
            if process.exitcode is None and (ranks is None or rank in ranks):
                os.kill(process.pid, number)

    def finish(self):
        """Exit codes."""
        for process in self.processes:
            process.join(PATIENCE)
        codes = [process.exitcode for process in self.processes]
        assert None not in codes, self.errors
        return codes

    @property
    def errors(self):
        """What all have written to standard error."""
        return "".join(log.with_suffix(".err").read_text(errors="replace") for log in self._logs)

    @property
    def output(self):
        return "".join(log.with_suffix(".out").read_text(errors="replace") for log in self._logs)

    @property
    def taken(self):
        """Numbers of the batches that were begun."""
        return [int(line) for line in self._notes.read_text().split()] if self._notes.exists() else []


def _run(arguments, surroundings, folder, log, notes, pace, control_c):
    """What a forked process does."""
    os.environ.update({name: str(value) for name, value in surroundings.items()})
    os.chdir(folder)
    for number, end in ((1, ".out"), (2, ".err")):
        file = os.open(log.with_suffix(end), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, control_c)
    torch.set_num_threads(1)
    for run in (survey_run.SurveyRun, evaluation_run.EvaluationRun):
        run.take = _noted(run.take, notes)
    evaluation_run._SAVE_EVERY = 0.0  # behind every map
    if pace:
        explained_batch.score_heads = _delayed(explained_batch.score_heads, pace)
        evaluation_run.EvaluationRun._after_method = _delayed(evaluation_run.EvaluationRun._after_method, pace)
        for name in ("replace", "unlink", "rmdir"):  # so that a kill may well come between two of them
            setattr(os, name, _delayed(getattr(os, name), pace))
    sys.argv = ["gmar-hf", *arguments]
    main()


def _noted(take, notes):
    def noted(self, batch):
        with notes.open("a") as file:
            file.write(f"{batch.number}\n")
        take(self, batch)

    return noted


def _delayed(function, seconds):
    def delayed(*args, **kwargs):
        time.sleep(seconds / 2)
        result = function(*args, **kwargs)
        time.sleep(seconds / 2)
        return result

    return delayed
