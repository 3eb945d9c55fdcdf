"""How the benchmarks take times and memory: in pairs, on a CPU by a clock, on a GPU by its events."""

import ctypes
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # options of glibc's mallopt

Timer = Callable[[Callable[[], object]], float]  # seconds of one call
Seconds = dict[str, list[float]]  # of every candidate in every round


def by(clock: Callable[[], float]) -> Timer:
    """Time calls by a clock of seconds."""

    def timed(call: Callable[[], object]) -> float:
        begin = clock()
        call()
        return clock() - begin

    return timed


def by_cuda_events(call: Callable[[], object]) -> float:
    """Time a call on the GPU: from the last work before it to the end of its own."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000  # milliseconds


by_wall_clock = by(time.perf_counter)


def timer_of(device: str) -> Timer:
    return by_cuda_events if device.startswith("cuda") else by_wall_clock


def peak_of(call: Callable[[], object], device: str) -> float:
    """GiB at most in use within a call, the model's weights among them: of a GPU, or on a CPU of this process.

    The process's pages are counted that it has touched, also those that it has set free but not given back.
    """
    if not device.startswith("cuda"):
        _forget_peak()
        call()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 2**30


def _forget_peak() -> None:
    """Let this process's peak be what it holds now; where the system has no such thing the peak stays."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5")


def keep_freed_memory() -> None:
    """Let this process keep the memory that it sets free, where the C library can.

    Else the system takes pages back and gives them anew, which costs whichever candidate comes to them first.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_TRIM_THRESHOLD, -1)  # never
        mallopt(M_MMAP_MAX, 0)  # nothing outside the heap, which is never trimmed


def paired(
    rounds: int, timer: Timer = by_wall_clock, *, is_warm: bool = False, **candidates: Callable[[], object]
) -> Seconds:
    """Seconds of every candidate in every round; the candidates of a round run one after the other.

    Args:
        rounds (`int`): How often everything is timed.
        timer (`Callable`): From a call to its seconds.
        is_warm (`bool`): Whether what the first call of a candidate does once was done already; else each is called
            once before.
        **candidates (`Callable`): What is timed, by name.
    """
    if not is_warm:
        for candidate in candidates.values():
            candidate()
    seconds: Seconds = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            seconds[name].append(timer(candidate))
    return seconds


def ratios(seconds: Seconds, name: str, base: str) -> list[float]:
    """A candidate's seconds in those of another, round by round."""
    return [value / beside for value, beside in zip(seconds[name], seconds[base], strict=True)]


def ratio(seconds: Seconds, name: str, base: str) -> float:
    """The median over the rounds of a candidate's seconds in those of another."""
    return statistics.median(ratios(seconds, name, base))
