"""What both command lines share: one-line errors with exit code 2, and one rich console per stream."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from gentron.errors import UserError

SHOWN_AS_ONE_LINE = (UserError, ValueError, OSError, MemoryError)
UsageError: Any = typer.BadParameter.__mro__[1]  # click's; newer typers carry a copy of click of their own
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")
EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as a shell counts


def one_line(error: BaseException) -> str:
    """The message on one line; an OSError without its number, with its file."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return " ".join(f"{error.strerror}{where}".split())
    return " ".join(str(error).split()) or type(error).__name__


def usage_line(error: Any) -> str:
    """A wrong word of the command line: what is wrong with it, what was given, where the help is."""
    message = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    details = getattr(error.__cause__, "errors", None)  # pydantic's; it knows the value that did not fit
    given = str(details()[0].get("input", "")) if details is not None else ""
    if given and given not in message:
        message += f", got '{given[:100]}'"
    where = f"; see '{error.ctx.command_path} --help'" if error.ctx is not None else ""
    return message[:1].lower() + message[1:] + where


def _shows_traceback(error: BaseException) -> bool:
    # a reader that closed the pipe (`gentron models | head`) is click's business
    return isinstance(error, BrokenPipeError) or os.environ.get("GENTRON_DEBUG") == "1"


def _is_out_of_memory(error: RuntimeError) -> bool:
    """torch's allocators, without importing torch to ask."""
    return any(text in str(error) for text in OUT_OF_MEMORY)


@contextmanager
def errors_as_one_line() -> Iterator[None]:
    """Show what a person can cause as `error: <one line>` and leave with 2; Ctrl-C as a line and 130."""
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help, printed by now
            raise
        line, code = f"error: {usage_line(error)}", EXIT_CODE
    except SHOWN_AS_ONE_LINE as error:
        if _shows_traceback(error):
            raise
        line, code = f"error: {one_line(error)}", EXIT_CODE
    except RuntimeError as error:
        if _shows_traceback(error) or not _is_out_of_memory(error):
            raise
        first = str(error).splitlines()[0]
        line, code = f"error: not enough memory: {first}; ask for smaller or fewer pictures", EXIT_CODE
    except KeyboardInterrupt as error:
        if _shows_traceback(error):
            raise
        line, code = "interrupted", INTERRUPTED_EXIT_CODE
    else:
        return
    typer.echo(line, err=True)
    raise typer.Exit(code)


class OneLineErrors(TyperGroup):
    """A command group with errors_as_one_line for itself and for the groups mounted below it.

    GENTRON_DEBUG=1 shows the traceback instead.
    """

    def make_context(self, *args: Any, **options: Any) -> Any:
        with errors_as_one_line():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with errors_as_one_line():
            result = super().invoke(ctx)
            sys.stdout.flush()  # a full disk behind stdout is said here, not by the interpreter at its end
            return result


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
        with errors_as_one_line():
            app()
    except typer.Exit as done:
        _drop_unwritable_output()
        sys.exit(done.exit_code)
    except SystemExit:
        _drop_unwritable_output()
        raise


def _drop_unwritable_output() -> None:
    """What a full disk did not take of stdout would be tried, and complained of, once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
