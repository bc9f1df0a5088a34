"""What both command lines share: one-line errors with exit code 2, and one rich console per stream."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from gentron.errors import UserError

SHOWN_AS_ONE_LINE = (UserError, ValueError, OSError)
EXIT_CODE = 2


def one_line(error: BaseException) -> str:
    """The message on one line; an OSError without its number, with its file."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return " ".join(str(error).split()) or type(error).__name__


def _shows_traceback(error: BaseException) -> bool:
    # a reader that closed the pipe (`gentron models | head`) is click's business
    return isinstance(error, BrokenPipeError) or os.environ.get("GENTRON_DEBUG") == "1"


class OneLineErrors(TyperGroup):
    """A command group that shows what a person can cause as `error: <one line>` and exits with 2.

    GENTRON_DEBUG=1 shows the traceback instead. It covers the groups mounted below it too.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SHOWN_AS_ONE_LINE as error:
            if _shows_traceback(error):
                raise
            typer.echo(f"error: {one_line(error)}", err=True)
            raise typer.Exit(EXIT_CODE) from None


def make_app(help: str) -> typer.Typer:
    """A Typer application with OneLineErrors, so that CliRunner sees the same exit codes as a shell."""
    return typer.Typer(
        cls=OneLineErrors,
        help=help,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run_app(app: typer.Typer) -> None:
    """Run an application as a program; the same one-line errors for an app that make_app did not make."""
    try:
        app()
    except SHOWN_AS_ONE_LINE as error:
        if _shows_traceback(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(EXIT_CODE)
