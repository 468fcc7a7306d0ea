"""A participant: the handlers of one service, declared with decorators."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import FrameType, MappingProxyType
from typing import Any, Protocol, overload

from typing_extensions import TypeVar

from amends.brokers import Broker, Retention
from amends.brokers.settings import find_settings
from amends.contracts import Clock, Command, Compensation, Duration, Reply, UsageError, as_timedelta
from amends.participants.context import Context
from amends.participants.errors import ParticipantDefinitionError
from amends.participants.handlers import Handler, Options, RetryPolicy, make_handler
from amends.participants.inbox import Inbox
from amends.participants.running import run_participant

R = TypeVar("R", bound="Reply | None")
R_co = TypeVar("R_co", bound="Reply | None", covariant=True)
C = TypeVar("C", bound=Command[Any, Any])
U = TypeVar("U", bound=Compensation[Any])


class _ForAction(Protocol[R]):
    """`@participant.action(TheCommand)`: takes a function that returns what the command promises."""

    @overload
    def __call__(
        self, fn: Callable[[Any, Context], Coroutine[Any, Any, R]], /
    ) -> Callable[[Any, Context], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[[Any], Coroutine[Any, Any, R]], /) -> Callable[[Any], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[[Any, Context], R], /) -> Callable[[Any, Context], R]: ...
    @overload
    def __call__(self, fn: Callable[[Any], R], /) -> Callable[[Any], R]: ...


class _ForCompensation(Protocol[U]):
    """`@participant.compensation(TheCompensation)`: takes a function that returns nothing."""

    @overload
    def __call__(
        self, fn: Callable[[U, Context], Coroutine[Any, Any, None]], /
    ) -> Callable[[U, Context], Coroutine[Any, Any, None]]: ...
    @overload
    def __call__(self, fn: Callable[[U], Coroutine[Any, Any, None]], /) -> Callable[[U], Coroutine[Any, Any, None]]: ...
    @overload
    def __call__(self, fn: Callable[[U, Context], None], /) -> Callable[[U, Context], None]: ...
    @overload
    def __call__(self, fn: Callable[[U], None], /) -> Callable[[U], None]: ...


class Participant:
    """The part of a service that takes part in sagas.

    Functions become handlers by `@participant.action` and `@participant.compensation`; they stay plain functions. A
    mistake in one raises `ParticipantDefinitionError` where it is declared.

    `concurrency` is how many actions run at once, `undo_concurrency` how many compensations beside them, so that a mass
    rollback gets through. `retry` is the policy of handlers that have none: a tenacity `AsyncRetrying` (by default
    three attempts with exponential, jittered waits). `lease` is how long a claim outlives a process that died; `skew`
    how far clocks may be apart. `inbox` is an `Inbox` or its URL; without one it goes with the broker. `retention` says
    how long the inbox remembers an effect; without it, what the settings say. `handling_limit`: after how many counted
    handlings in which the process died a command or an undo is answered as failed, and is a dead letter.
    """

    def __init__(
        self,
        service: str,
        *,
        inbox: Inbox | str | None = None,
        concurrency: int = 64,
        undo_concurrency: int = 16,
        retry: RetryPolicy | None = None,
        lease: Duration = 30.0,
        skew: Duration = 5.0,
        retention: Retention | None = None,
        handling_limit: int = 5,
    ) -> None:
        if not isinstance(service, str) or not service:
            raise UsageError(f'Participant({service!r}): name the service, as in Participant("inventory")')
        if min(concurrency, undo_concurrency) < 1:
            raise UsageError(f"Participant({service!r}): concurrency= and undo_concurrency= are at least 1")
        if handling_limit < 1:
            raise UsageError(f"Participant({service!r}): handling_limit= is at least 1")
        self.service = service
        self.inbox = inbox
        self.concurrency = concurrency
        self.undo_concurrency = undo_concurrency
        self.retry = retry
        self.lease = as_timedelta(lease, "lease")
        self.skew = as_timedelta(skew, "skew")
        self.retention = retention
        self.handling_limit = handling_limit
        if not self.lease:
            raise UsageError(f"Participant({service!r}): lease= must be longer than nothing")
        self._handlers: dict[str, Handler] = {}

    def __repr__(self) -> str:
        return f"Participant({self.service!r}, handlers={len(self._handlers)})"

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handlers by the tag of their message."""
        return MappingProxyType(self._handlers)

    @overload
    def action(
        self, fn: Callable[[C, Context], Coroutine[Any, Any, R]], /
    ) -> Callable[[C, Context], Coroutine[Any, Any, R]]: ...
    @overload
    def action(self, fn: Callable[[C], Coroutine[Any, Any, R]], /) -> Callable[[C], Coroutine[Any, Any, R]]: ...
    @overload
    def action(self, fn: Callable[[C, Context], R], /) -> Callable[[C, Context], R]: ...
    @overload
    def action(self, fn: Callable[[C], R], /) -> Callable[[C], R]: ...
    @overload
    def action(
        self,
        command: type[Command[R, Any]],
        /,
        *,
        concurrency: int | None = None,
        retry: RetryPolicy | None = None,
        transactional: bool = False,
        timeout: Duration | None = None,
    ) -> _ForAction[R]: ...
    def action(self, fn: Any, /, **options: Any) -> Any:
        """Declare the handler of a command.

        Bare, the command is read from the annotation. `@participant.action(ReserveStock)` lets type checkers relate the
        reply to the command, and takes options: `concurrency` slots of its own, a `retry` policy, a `timeout` for one
        attempt, and `transactional=True` for a plain `def` all of whose effects are written with `ctx.session`.
        """
        return self._declare(fn, Command, options, sys._getframe(1))

    @overload
    def compensation(
        self, fn: Callable[[U, Context], Coroutine[Any, Any, None]], /
    ) -> Callable[[U, Context], Coroutine[Any, Any, None]]: ...
    @overload
    def compensation(
        self, fn: Callable[[U], Coroutine[Any, Any, None]], /
    ) -> Callable[[U], Coroutine[Any, Any, None]]: ...
    @overload
    def compensation(self, fn: Callable[[U, Context], None], /) -> Callable[[U, Context], None]: ...
    @overload
    def compensation(self, fn: Callable[[U], None], /) -> Callable[[U], None]: ...
    @overload
    def compensation(
        self,
        compensation: type[U],
        /,
        *,
        concurrency: int | None = None,
        retry: RetryPolicy | None = None,
        transactional: bool = False,
        timeout: Duration | None = None,
    ) -> _ForCompensation[U]: ...
    def compensation(self, fn: Any, /, **options: Any) -> Any:
        """Declare the handler of a compensation. It takes the same options as `action`."""
        return self._declare(fn, Compensation, options, sys._getframe(1))

    def _declare(self, fn: Any, kind: Any, options: dict[str, Any], frame: FrameType) -> Any:
        if not isinstance(fn, type):
            self._add(fn, kind, Options(**options), frame)
            return fn

        def register(function: Any) -> Any:
            self._add(function, kind, Options(**options), sys._getframe(1), fn)
            return function

        return register

    def _add(self, function: Any, kind: Any, options: Options, frame: FrameType, named: Any = None) -> None:
        local_names = frame.f_locals if frame.f_locals is not frame.f_globals else {}
        handler = make_handler(self.service, function, kind, options, local_names, named)
        other = self._handlers.setdefault(handler.message.__tag__, handler)
        if other is handler:
            return
        if other.message is handler.message:
            raise ParticipantDefinitionError(
                handler.where, f"{handler.message.__name__} is already handled by {other.where}", "Remove one of them"
            )
        raise ParticipantDefinitionError(
            handler.where,
            f"{handler.message.__qualname__} has the tag {other.message.__tag__!r} of {other.message.__qualname__}",
            "Give one of the two another name= or version=",
        )

    def running(
        self,
        broker: Broker | str | None = None,
        *,
        inbox: Inbox | str | None = None,
        grace: Duration = 30.0,
        clock: Clock | None = None,
    ) -> AbstractAsyncContextManager[None]:
        """Handle messages for the time of an `async with`; leaving it waits up to `grace` for handlers at work.

        `broker` is a `Broker` or its URL; without one, that of the settings. `inbox` comes before the participant's
        own, that before the one of the settings, and that before the one that goes with the broker. What is given as a
        URL is closed at the end, what is given as an object is left open. Raises `UsageError` for an inbox that
        does not fit the broker.
        """
        inbox = inbox or self.inbox
        retention = self.retention
        if broker is None or inbox is None or retention is None:
            settings = find_settings().settings
            broker = broker or settings.broker
            inbox = inbox or settings.inbox
            retention = retention or settings.kept
        return run_participant(self, broker, inbox, retention, grace, clock)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """`running()` as the lifespan of an ASGI application: `Starlette(lifespan=inventory.lifespan)`."""
        async with self.running():
            yield
