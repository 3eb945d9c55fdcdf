"""What a process tells when another one of its run is gone."""

import signal
import threading
from types import SimpleNamespace

import pytest

from gmar_hf import GMARError
from gmar_hf.runs import processes
from gmar_hf.runs.processes import RunInterrupted, exchange, patient


@pytest.fixture
def two_processes(monkeypatch):
    monkeypatch.setattr(processes, "PartialState", lambda: SimpleNamespace(num_processes=2, process_index=0))


def interrupt_in(seconds):
    timer = threading.Timer(seconds, signal.raise_signal, [signal.SIGINT])
    timer.start()
    return timer


@pytest.fixture
def ctrl_c_raises():
    """Ctrl-C as at a terminal, also where the tests run in the background of a shell that ignores it there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_raises")
def test_the_first_control_c_is_answered_at_once(capfd):
    with patient("Stopping.") as interruption:
        assert not interruption.requested
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested
        assert capfd.readouterr().err == "Stopping."
        signal.raise_signal(signal.SIGINT)  # the launcher's, of the same Ctrl-C
    assert capfd.readouterr().err == ""


class TestExchange:
    @pytest.mark.usefixtures("ctrl_c_raises")
    @pytest.mark.parametrize("is_patient", [False, True])
    @pytest.mark.parametrize("signal_first", [False, True])
    def test_both_were_interrupted(self, two_processes, is_patient, signal_first):
        """Whichever reaches this process first: its own signal, or the connection that the other one's end broke."""

        def broken():
            with exchange():
                if signal_first:
                    signal.raise_signal(signal.SIGINT)
                else:
                    interrupt_in(0.2)
                raise RuntimeError("Connection closed by peer")

        if is_patient:
            with patient(), pytest.raises(RunInterrupted):
                broken()
        else:
            with pytest.raises(KeyboardInterrupt):
                broken()

    def test_only_the_other_one_is_gone(self, two_processes, monkeypatch):
        monkeypatch.setattr(processes, "_GRACE", 0.1)
        with pytest.raises(GMARError, match=r"another one is gone.*same command"), exchange():
            raise RuntimeError("Connection closed by peer")

    def test_a_single_process_has_its_own_errors(self):
        with pytest.raises(RuntimeError, match="out of memory"), exchange():
            raise RuntimeError("out of memory")
