"""The command line's frame. Exit codes: 0 done, 1 bad input (one line says what to do), 2 wrong usage.

Modules of the command line import neither torch nor transformers nor numpy before a command runs, so that help and
usage errors come at once.
"""

import functools
import inspect
import io
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, fields
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from gmar_hf._version import __version__
from gmar_hf.errors import GMARError
from gmar_hf.utils.text import printable

_HYPHEN = "\N{NON-BREAKING HYPHEN}"


class _Plain:
    """Shows no Python types in a command's help, where flags take nothing, and no name on two lines."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
            elif param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: ""
            param.help = re.sub(r"(?<=\w)-(?=\w)", _HYPHEN, getattr(param, "help", None) or "")
        return params

    def get_help(self, ctx: Any) -> str:
        text: str = super().get_help(ctx)  # type: ignore[misc]
        return text.replace(_HYPHEN, "-")


class _Command(_Plain, TyperCommand):
    """A command."""


class _Commands(_Plain, TyperGroup):
    """All of them."""


app = typer.Typer(
    name="gmar-hf",
    cls=_Commands,
    help="Explain image classifiers of the ViT kind, head by head.",
    epilog="Example: gmar-hf demo",
    no_args_is_help=True,
    rich_markup_mode=None,  # whose columns cut names off at 80 columns
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; what a user can mend ends in one line on standard error and exit code 1."""
    # Closed by whoever started the command: what is said is lost, and nothing else.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a label may hold letters that a terminal lacks
    try:
        app(prog_name="gmar-hf")
    except (GMARError, OSError) as error:
        if isinstance(error, GMARError) and error.is_echo:  # of several processes one tells
            raise SystemExit(1) from None
        with suppress(OSError):  # where nothing can be told, the exit code tells
            sys.stderr.write(f"gmar-hf: {_message(error)}\n")
        raise SystemExit(1) from None


def _message(error: Exception) -> str:
    """Return an error as one line; of one that names no file, say whether it is standard output that takes nothing."""
    if not isinstance(error, GMARError) and getattr(error, "filename", None) is None:
        try:
            sys.stdout.write("\n")
            sys.stdout.flush()
        except OSError as unprinted:
            with suppress(OSError):  # or Python would try again at its end, and tell in its own way
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return (
                f"what is printed must find a place; standard output takes nothing ({unprinted.strerror}). "
                "Files that the command has written are complete."
            )
    return printable(" ".join(str(error).split()))


def command(options: type, *, example: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a function as the command of its name.

    Args:
        options (`type`): A dataclass. Each of its fields is an option of the command, and the function is called with
            an instance that holds what was typed.
        example (`str`): A line that can be typed; the command's help ends with it.
    """

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(function)
        def run(**values: Any) -> None:
            if "torch" not in sys.modules:
                tell("Starting torch and transformers ...")  # seconds in which nothing else is seen
            _quiet_transformers()
            function(options(**values))

        # Typer reads the signature: one parameter for each field of the dataclass.
        parameters = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=field.type,
            )
            for field in fields(options)
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        about = inspect.getdoc(function) or ""
        first = re.split(r"(?<=[.?]) ", " ".join(about.split()), maxsplit=1)[0]
        app.command(cls=_Command, help=about, short_help=first, epilog=f"Example: {example}")(run)
        return function

    return register


def echo_json(summary: Any) -> None:
    """Print a summary as JSON on standard output."""
    typer.echo(json.dumps(summary, indent=2))


def tell(doing: str) -> None:
    """Say on standard error what is being done, if that is a terminal: scripts keep it for errors."""
    if sys.stderr.isatty():
        typer.echo(printable(doing), err=True)


def _quiet_transformers() -> None:
    """Let transformers, which every command loads, neither warn nor draw progress bars between our own lines.

    The Hub's bars stay on a terminal: who waits for a model to be downloaded sees how far it is.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()
    were_shown = not are_progress_bars_disabled()
    logging.disable_progress_bar()  # the Hub's too
    if were_shown and sys.stderr.isatty():
        enable_progress_bars()
