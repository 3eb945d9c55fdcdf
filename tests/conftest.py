"""Fixtures that several files of tests share, and what holds for all of them."""

import functools
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: tests and the processes they start share the cores

import pytest
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from tests.helpers import commands, hub_server, reports


@pytest.fixture(autouse=True, scope="session")
def small_figures():
    """Small pictures for the figures of reports, whose drawing takes most of a save; test_card.py draws them all."""
    with pytest.MonkeyPatch.context() as patch:
        for user in ("report_files", "page"):
            patch.setattr(f"gmar_hf.report.{user}.png", reports.small_figure)
        yield


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line in this process: exit code, standard output and standard error."""
    return functools.partial(commands.run, monkeypatch, capsys)


@pytest.fixture
def hub(tmp_path):
    """A Hub on this machine, which this process's own client talks to without progress bars."""
    disable_progress_bars()
    try:
        with hub_server.serving() as hub, hub_server.client_of(hub, tmp_path / "home"):
            yield hub
    finally:
        enable_progress_bars()
