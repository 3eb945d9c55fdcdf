"""The command line's frame. Exit codes: 0 done, 1 bad input (one line says what to do), 2 wrong usage."""

import io
import json
import sys
from typing import Annotated, Any

import typer
from transformers.utils import logging as transformers_logging

from gmar_hf._version import __version__
from gmar_hf.errors import GMARError
from gmar_hf.utils.text import printable

app = typer.Typer(
    name="gmar-hf",
    help="Explain image classifiers of the ViT kind, head by head.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ModelOption = Annotated[str, typer.Option("--model", "-m", help="Hub id or folder of an image classifier.")]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the Hub.")]
DeviceOption = Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; a GPU by default, where there is one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; what a user can mend ends in one line on standard error and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a label may hold letters that a terminal lacks
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        app()
    except (GMARError, OSError) as error:
        if isinstance(error, GMARError) and error.is_echo:  # of several processes one tells
            raise SystemExit(1) from None
        sys.stderr.write(f"gmar-hf: {printable(' '.join(str(error).split()))}\n")
        raise SystemExit(1) from None


def echo_json(summary: Any) -> None:
    typer.echo(json.dumps(summary, indent=2))
