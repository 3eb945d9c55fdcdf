"""How the benchmarks take times and memory: in pairs, on a CPU by a clock, on a GPU by its events."""

import resource
import time
from collections.abc import Callable

import torch

Timer = Callable[[Callable[[], object]], float]  # seconds of one call


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
    """GiB of a GPU at most in use within a call, the model's weights among them; on a CPU, of this process so far."""
    if not device.startswith("cuda"):
        call()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 2**30


def paired(rounds: int, timer: Timer = by_wall_clock, **candidates: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of every candidate in every round; the candidates of a round run one after the other."""
    for candidate in candidates.values():
        candidate()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            seconds[name].append(timer(candidate))
    return seconds
