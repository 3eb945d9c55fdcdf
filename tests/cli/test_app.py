"""The frame of the command line: help and usage errors come at once, and no command repeats another's options."""

import json
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import gmar_hf
from gmar_hf.cli.app import app
from gmar_hf.evaluation.maps.map_registry import MAP_METHODS
from gmar_hf.explanation.methods import METHODS
from gmar_hf.metrics.registry import KNOWN_BASELINES, METRICS
from tests.helpers.sampling import in_a_campaign

COMMANDS = ("explain", "demo", "check", "report", "evaluate", "compare", "merge", "env")
LIGHT = [
    ["--help"],
    ["--version"],
    ["--nonsense"],
    ["nonsense"],
    [],
    *([command, "--help"] for command in COMMANDS),
    *([command, "--nonsense"] for command in COMMANDS),
    ["explain", "cat.png", "--method", "gma"],
    ["report", "--out", "out", "--target", "best"],
]
PROGRAM = """
import contextlib, io, json, sys
from gmar_hf.cli import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["gmar-hf", *arguments]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
    heavy = [name for name in ("accelerate", "datasets", "numpy", "torch", "transformers") if name in sys.modules]
    print(json.dumps([code, heavy, output.getvalue()]))
"""
ON_A_TERMINAL = """
import sys
sys.stderr.isatty = lambda: True
sys.argv = ["gmar-hf", "env"]
from gmar_hf.cli import main
main()
"""


@pytest.fixture(scope="module")
def outcomes():
    """Exit code, heavy modules and output of every command line in `LIGHT`, one after the other in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(LIGHT)],
        capture_output=True, text=True, check=True, cwd=Path(gmar_hf.__file__).parents[1],
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    return {" ".join(line): json.loads(text) for line, text in zip(LIGHT, done.stdout.splitlines(), strict=True)}


@pytest.mark.parametrize("line", LIGHT, ids=" ".join)
def test_help_and_usage_errors_load_neither_torch_nor_transformers(outcomes, line):
    code, heavy, _ = outcomes[" ".join(line)]
    assert heavy == []
    assert code == (0 if line and line[-1] in ("--help", "--version") else 2)


def test_version_and_help(outcomes):
    assert outcomes["--version"][2] == f"{gmar_hf.__version__}\n"
    assert all(command in outcomes["--help"][2] for command in COMMANDS)
    assert "a GPU by default" in outcomes["explain --help"][2]  # in brackets it would be taken for markup


@pytest.mark.parametrize("line", [line for line in LIGHT if line[-1:] == ["--help"]], ids=" ".join)
def test_help_shows_names_and_choices_in_place_of_types(outcomes, line):
    shown = set(re.findall(r"<[\w|]+>", outcomes[" ".join(line)][2]))
    assert shown <= {"<l1|l2>", "<positive|signed>", "<predicted|label>"}


@pytest.mark.slow
def test_a_terminal_is_told_what_the_first_seconds_are_for():
    done = subprocess.run(
        [sys.executable, "-c", ON_A_TERMINAL], capture_output=True, text=True, cwd=Path(gmar_hf.__file__).parents[1]
    )
    assert done.stderr == "Starting torch and transformers ...\n"
    assert "torch:" in done.stdout


def test_the_help_of_evaluate_lists_all_maps_metrics_and_baselines(outcomes):
    output = outcomes["evaluate --help"][2]
    assert all(name in output for name in (*MAP_METHODS, *METRICS, *KNOWN_BASELINES))
    assert "captum torchcam" in " ".join(output.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_loses_a_word_to_markup(outcomes, command):
    (info,) = [info for info in app.registered_commands if info.callback.__name__ == command]
    options = typing.get_type_hints(info.callback, include_extras=True).values()
    helps = [option.__metadata__[0].help for option in options if typing.get_origin(option) is typing.Annotated]
    shown = "".join(re.findall(r"[^\s│]", outcomes[f"{command} --help"][2]))
    assert len(helps) > 1 or command in ("compare", "env")
    for text in [info.help, info.epilog, *helps]:
        assert "".join(text.replace("\\[", "[").split()) in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_ends_with_an_example(outcomes, command):
    assert re.search(rf"\n  Example: gmar-hf {command}( .*)?\n$", outcomes[f"{command} --help"][2])


def test_examples_stay_on_a_line_of_80_columns():
    assert "Example: " in app.info.epilog
    for info in app.registered_commands:
        assert len(f" {info.epilog} ") <= 80


def test_an_unknown_method_is_told_with_those_there_are(outcomes):
    output = outcomes["explain cat.png --method gma"][2]
    assert all(name in output for name in ("gma", *METHODS))
    assert "Did you mean 'gmar'?" in output


def in_a_shell(line, unbuffered=""):
    """Exit code and standard error of the command in a shell's line; its standard output goes where the line says."""
    done = subprocess.run(
        ["bash", "-c", f"{unbuffered}set -o pipefail; {line.replace('gmar-hf', f'{sys.executable} -m gmar_hf')}"],
        capture_output=True, text=True, cwd=Path(gmar_hf.__file__).parents[1],
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["--version", in_a_campaign("--help"), in_a_campaign("env --json")])
def test_standard_output_that_takes_nothing(command):
    for unbuffered in ("unset PYTHONUNBUFFERED; ", "export PYTHONUNBUFFERED=1; "):
        assert in_a_shell(f"gmar-hf {command} >/dev/full", unbuffered) == (
            1,
            "gmar-hf: what is printed must find a place; standard output takes nothing (No space left on device). "
            "Files that the command has written are complete.\n",
        )
    assert in_a_shell(f"gmar-hf {command} | true") == (1, "")  # a reader that has seen enough is told nothing
    assert in_a_shell(f"gmar-hf {command} >&-") == (0, "")


@pytest.mark.slow
@pytest.mark.campaign
def test_standard_error_that_takes_nothing():
    assert in_a_shell("gmar-hf --version 2>&- >/dev/null")[0] == 0
    assert in_a_shell("gmar-hf merge one --out x 2>/dev/full")[0] == 1
