"""The errors of amends: one base, four branches that say what to do about it."""

import traceback


class AmendsError(Exception):
    """Everything that amends raises on purpose."""


class UsageError(AmendsError):
    """A mistake in code or configuration: change it; trying again will not help."""


class TransientError(AmendsError):
    """Something that passes: nothing was lost, the same call may be tried again."""


class TerminalError(AmendsError):
    """This one message or request can never succeed as it stands."""


class InternalError(AmendsError):
    """A bug in amends: an invariant that the code relies on did not hold."""


class ContractError(UsageError, TypeError):
    """A message class that cannot be a contract.

    `subject` is the class it is about, `problem` what is wrong, `remedy` what to write instead.
    """

    def __init__(self, subject: str, problem: str, remedy: str) -> None:
        self.subject, self.problem, self.remedy = subject, problem, remedy
        super().__init__(f"{subject}: {problem}. {remedy}")


class InvalidIdError(UsageError, ValueError):
    """An id that cannot name a saga."""

    def __init__(self, saga_id: str, problem: str) -> None:
        self.saga_id, self.problem = saga_id, problem
        super().__init__(f"saga id {saga_id[:60]!r} {problem}. Use 1 to 200 printable characters")


class DecodeError(TerminalError):
    """Bytes that are not what their type says. `type` is the tag, `problem` names the field as `$.path`."""

    def __init__(self, type: str, problem: str) -> None:
        self.type, self.problem = type, problem
        super().__init__(f"{type}: {problem}")


class UnknownTypeError(TerminalError):
    """A type tag that nobody here knows. `known` lists the tags that are."""

    def __init__(self, type: str, known: tuple[str, ...] = ()) -> None:
        self.type, self.known = type, known
        hint = f"; known here: {', '.join(sorted(known)[:8])}" if known else ""
        super().__init__(f"unknown message type {type!r}{hint}")


def stack_of(error: BaseException) -> str:
    """The traceback as plain text for a log.

    Loggers that render exceptions themselves may print the values of local variables, and with them customers' data.
    """
    return writable("".join(traceback.format_exception(error)))


def text_of(error: BaseException) -> str:
    """What an exception says, in text that can be stored and sent, whatever the class of the exception does."""
    try:
        return writable(str(error))
    except Exception:
        return "(its message cannot be read)"


def writable(text: str) -> str:
    """`text` with its lone surrogates, which no encoding can write, as escapes."""
    return text.encode(errors="backslashreplace").decode()
