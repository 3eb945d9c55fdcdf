"""What a survey says of its progress where there is no terminal, and where there is one."""

import io
import sys

import pytest

from gmar_hf.runs import progress as survey_progress
from gmar_hf.runs.progress import Lines, counted, progress, time_left


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """The time, as the test sets it."""
    now = [0.0]
    monkeypatch.setattr(survey_progress.time, "monotonic", lambda: now[0])
    return now


def run(clock, *times, **settings):
    """Four images done at each of these times."""
    with progress(**{"done": 0, "total": 400, "hidden": False, **settings}) as shown:
        for time in times:
            clock[0] = time
            shown.update(4)
    return shown


def test_a_line_a_minute_and_one_at_the_end(clock, capsys):
    shown = run(clock, 30, 59, 61, 100, 130, 131)
    assert capsys.readouterr() == (
        "",
        "12 of 400 images are done, 5.1 s an image.\n20 of 400 images are done, 6.5 s an image.\n"
        "24 of 400 images are done, 5.5 s an image.\n",
    )
    assert shown.n == 24


def test_the_end_is_told_once(clock, capsys):
    run(clock, 61, total=4)
    assert capsys.readouterr().err == "4 of 4 images are done, 15 s an image.\n"


def test_no_speed_is_told_before_there_is_one(clock, capsys):
    with progress(done=0, total=400, hidden=False) as shown:
        clock[0] = 61
        shown.set_postfix_str("map 3 of 8")
    assert capsys.readouterr().err == "0 of 400 images are done; map 3 of 8 of the batch in hand.\n"


def test_short_surveys_say_nothing(clock, capsys):
    run(clock, 1, 2, 59)
    assert capsys.readouterr() == ("", "")


def test_going_on(clock, capsys):
    run(clock, 1, done=120)
    assert capsys.readouterr().err == "Going on: 120 of 400 images are done.\n"
    assert run(clock, 80, done=120).n == 124
    assert capsys.readouterr().err.splitlines()[1].startswith("124 of 400 images are done, 20 s an image.")


def test_of_several_processes_one_tells(clock, capsys):
    shown = run(clock, 100, 200, done=120, hidden=True)
    assert capsys.readouterr() == ("", "")
    assert shown.n == 128


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress(120, 400, hidden=False) as shown:
        shown.update(80)
    assert not isinstance(shown, Lines)
    assert shown.n == 200
    written = sys.stderr.getvalue()
    assert written.startswith("Going on: 120 of 400 images are done.\n")
    assert "survey:" in written
    assert "200/400" in written


def test_counts():
    assert counted(1, 1) == "1 of 1 image is done"
    assert counted(0, 1200) == "0 of 1,200 images are done"
    assert counted(1200, None) == "1,200 images are done"


def test_how_long_the_rest_will_take():
    assert time_left(5.9, 10, 100) is None  # 59 seconds
    assert time_left(6, 10, 100) == "The first 10 images took 6 seconds; the other 100 will take about 1 minute."
    assert time_left(0.6, 1, 1000) == "The first image took 1 second; the other 1,000 will take about 10 minutes."
    assert time_left(90, 10, 1000) == "The first 10 images took 90 seconds; the other 1,000 will take about 2.5 hours."
    assert time_left(90, 10, 0) is None
