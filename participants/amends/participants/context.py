"""What a handler is told besides its message."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal

from typing_extensions import TypeVar

from amends.contracts import Command, EffectKey, Reply, UsageError

R = TypeVar("R", bound="Reply | None")
C_co = TypeVar("C_co", bound=Command[Any, Any], covariant=True, default=Any)


class Undoes(Generic[C_co]):
    """What was recorded of the action that a compensation undoes.

    `outcome` is `done`, or `unknown` when the action was broken off or given up: it may have happened, wholly or in
    part, and the compensation must find out or be harmless.
    """

    __slots__ = ("_command", "_known", "_reply")

    def __init__(
        self, command: Command[Any, Any], reply: Reply | None = None, *, outcome: Literal["done", "unknown"] = "done"
    ) -> None:
        self._command, self._reply, self._known = command, reply, outcome == "done"

    @property
    def command(self) -> C_co:
        """The command, in the wording that was run."""
        command: Any = self._command
        return command  # type: ignore[no-any-return]

    @property
    def outcome(self) -> Literal["done", "unknown"]:
        return "done" if self._known else "unknown"

    @property
    def reply(self: Undoes[Command[R, Any]]) -> R:
        """What the action answered; None for a `Command[None]`. Raises `UsageError` when the outcome is unknown."""
        if not self._known:
            raise UsageError(
                f"the outcome of {type(self._command).__name__} is unknown, so there is no reply. "
                'Look at ctx.undoes.outcome first; when it is "unknown", go by ctx.undoes.command'
            )
        reply: Any = self._reply
        return reply  # type: ignore[no-any-return]


class Context(Generic[C_co]):
    """What a handler is told besides its message. Made by the runner; tests may make their own.

    `saga_id` names the saga, `effect_key` the effect, `revision` and `attempt` (from 0) the coordinator's wording and
    try. `deadline` is the moment after which the action would not have been started any more; None for compensations.
    """

    __slots__ = (
        "_session",
        "_undoes",
        "attempt",
        "correlation_id",
        "deadline",
        "effect_key",
        "revision",
        "saga_id",
    )

    def __init__(
        self,
        *,
        saga_id: str = "",
        effect_key: str = "",
        revision: int = 0,
        attempt: int = 0,
        deadline: datetime | None = None,
        correlation_id: str = "",
        undoes: Undoes[Any] | None = None,
        session: Any = None,
    ) -> None:
        self.saga_id = saga_id
        self.effect_key = effect_key
        self.revision = revision
        self.attempt = attempt
        self.deadline = deadline
        self.correlation_id = correlation_id
        self._undoes = undoes
        self._session = session

    @property
    def undoes(self) -> Undoes[C_co]:
        """What a compensation undoes. Raises `UsageError` in an action."""
        if self._undoes is None:
            raise UsageError("ctx.undoes is for compensations: an action undoes nothing")
        return self._undoes

    @property
    def session(self) -> Any:
        """The inbox's transaction, for a handler declared `transactional`: with `SqliteInbox` a `Session`.

        Raises `UsageError` in other handlers, and with an inbox that has no transactions.
        """
        if self._session is None:
            raise UsageError(
                "no ctx.session: declare the handler transactional=True, and give the participant an inbox with "
                "transactions, such as SqliteInbox"
            )
        return self._session

    @property
    def step(self) -> str:
        """The name of the saga's step. Raises `ValueError` when the effect key is of another make."""
        return EffectKey.parse(self.effect_key).step

    @property
    def idempotency_key(self) -> str:
        """What to pass on to others so that they act once: the same for all attempts and revisions of an effect.

        An action and its compensation have different ones.
        """
        return self.effect_key if self._undoes is None else f"{self.effect_key}/undo"
