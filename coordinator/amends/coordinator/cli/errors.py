"""What the command says when something is wrong, and the code it ends with."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

import typer

from amends.brokers.sqlite_file import FileCorrupt
from amends.contracts import AmendsError, InternalError, TransientError, UsageError
from amends.coordinator.client import Refused
from amends.coordinator.outcome import UnknownSagaId
from amends.coordinator.store import StoreCorrupt


class Exit(IntEnum):
    """What `amends` ends with. Scripts rely on these numbers."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNKNOWN_ID = 4
    TRY_AGAIN = 5
    CORRUPT = 6
    INTERRUPTED = 130


EXIT_CODES: Final = {
    Exit.OK: "done",
    Exit.FAILED: "what was asked for did not succeed: the saga did not complete, lint found errors",
    Exit.USAGE: "the arguments, the settings or a module are wrong",
    Exit.REFUSED: "the coordinator refused it",
    Exit.UNKNOWN_ID: "there is no such saga, or no such dead letter",
    Exit.TRY_AGAIN: "nobody answered, it has not ended yet, or the store or broker is away: try again",
    Exit.CORRUPT: "stored data cannot be read",
    Exit.INTERRUPTED: "interrupted",
}


class Failed(AmendsError):
    """The command itself worked, and what it was about did not. `code` is what to end with."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        self.code = code
        super().__init__(message)


def exit_code(error: AmendsError) -> Exit:
    """The code that an error ends the command with."""
    match error:
        case Failed():
            return error.code
        case Refused(code="no-such-saga") | UnknownSagaId():
            return Exit.UNKNOWN_ID
        case Refused(code="corrupt") | FileCorrupt() | StoreCorrupt():
            return Exit.CORRUPT
        case Refused():
            return Exit.REFUSED
        case TransientError():
            return Exit.TRY_AGAIN
        case UsageError():
            return Exit.USAGE
        case _:
            return Exit.FAILED


def complain(message: str) -> None:
    """Say on standard error what is wrong, without what could steer a terminal."""
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message)
    print(f"amends: {shown}", file=sys.stderr, flush=True)


@contextmanager
def reporting(*, debug: bool) -> Iterator[None]:
    """Turn the errors amends raises on purpose into a line and an exit code; others are bugs, and keep their trace."""
    try:
        yield
    except InternalError as error:
        traceback.print_exception(error)
        complain(f"this is a bug in amends: {error}")
        raise typer.Exit(Exit.FAILED) from error
    except AmendsError as error:
        if debug:
            traceback.print_exception(error)
        complain(str(error))
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
