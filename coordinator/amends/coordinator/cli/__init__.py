"""The `amends` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, NoReturn, cast

import typer
from typer.main import get_command

from amends.coordinator.cli import asking, checking, letters, looking, pinging, running, showing
from amends.coordinator.cli.errors import EXIT_CODES, Exit, complain

_USAGE_ERROR = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""What typer raises for wrong arguments; it does not export the name."""

_HELP = """Sagas that span services: run them, start them, look at them.

Settings come from the options, from AMENDS_… variables, then from amends.toml or [tool.amends] in pyproject.toml;
`amends config` shows them. Without any, broker and store are one file in .amends."""

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<5d}{meaning}" for code, meaning in EXIT_CODES.items())


def build() -> typer.Typer:
    """The application with all its commands."""
    app = typer.Typer(
        help=_HELP, epilog=_EPILOG, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    app.callback()(_common)
    for part in (running, asking, looking, letters, checking, pinging, showing):
        part.add_to(app)
    return app


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"amends {metadata.version('amends')}")
        raise typer.Exit


def _common(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Show it.")] = False,
) -> None:
    """What every command could take; typer wants a function for it."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    given = tuple(sys.argv[1:] if arguments is None else arguments)
    try:
        code = get_command(build())(list(given), prog_name="amends", standalone_mode=False, obj=given)
    except _USAGE_ERROR as error:
        code = _explain(error)
    except (KeyboardInterrupt, typer.Abort):
        code = Exit.INTERRUPTED
    sys.exit(code or Exit.OK)


def _explain(error: typer.BadParameter) -> Exit:
    """Say what is wrong with the arguments; without any arguments, the message is the help."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message, file=sys.stderr)
    else:
        path = error.ctx.command_path if error.ctx is not None else "amends"
        complain(f"{message.rstrip('.')}. See `{path} --help`")
    return Exit.USAGE
