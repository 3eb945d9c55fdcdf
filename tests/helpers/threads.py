"""Running functions at once, each in a thread of its own."""

import threading
from collections.abc import Callable


def in_threads(*functions: Callable[[], object]) -> None:
    """Start functions at one moment, wait for all of them, and raise what one of them raised."""
    barrier = threading.Barrier(len(functions))
    errors: list[BaseException] = []

    def work(function: Callable[[], object]) -> None:
        try:
            barrier.wait()
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
