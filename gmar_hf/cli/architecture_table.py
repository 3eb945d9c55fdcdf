"""What `gmar-hf check --all` prints: which architectures of transformers are explained."""

import typer

from gmar_hf.cli.app import echo_json, tell


def check_all(*, as_json: bool) -> None:
    """Try every architecture, print a row each, and end with exit code 1 if one is wrong without a word."""
    from gmar_hf.explanation.architectures import architectures, check_architecture
    from gmar_hf.explanation.methods import METHODS

    checks = []
    for architecture in architectures():
        tell(f"Trying {architecture.name} ...")
        checks.append(check_architecture(architecture))
    if as_json:
        echo_json(
            [
                {
                    "task": check.architecture.task,
                    "class": check.architecture.name,
                    "methods": list(check.methods),
                    "error": check.error,
                    "is_right": check.is_right,
                    "sentence": check.sentence,
                }
                for check in checks
            ]
        )
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("task", "class", "methods", "worst error", "in words")
        for check in checks:
            table.add_row(
                check.architecture.task,
                check.architecture.name,
                "all" if len(check.methods) == len(METHODS) else ", ".join(check.methods) or "-",
                "-" if check.error is None else f"{check.error:.0e}",
                check.reason,
            )
        Console().print(table)
    if not all(check.is_right for check in checks):
        raise typer.Exit(1)
