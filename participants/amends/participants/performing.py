"""Running handlers: once inside a transaction, or as often as their policy wants."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from amends.contracts.errors import stack_of
from amends.participants.answers import failed, performed, rejected
from amends.participants.context import Context
from amends.participants.errors import BrokenPromise, Reject
from amends.participants.handlers import Handler, RetryPolicy
from amends.participants.inbox import Performed
from amends.participants.incoming import Incoming, Reader
from amends.participants.retries import Sleep, repeat
from amends.participants.rows import Claimed

_log: Any = structlog.get_logger("amends.participants")


class Performer:
    """Calls handlers and says what they did.

    Async handlers run on the loop, plain functions in one of `threads` threads, so that they may block; without
    threads, and when transactional, on the loop too.
    """

    def __init__(self, reader: Reader, policy: RetryPolicy | None, sleep: Sleep, threads: int) -> None:
        self._reader, self._policy, self._sleep = reader, policy, sleep
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="amends-handler") if threads else None

    async def perform(self, incoming: Incoming, handler: Handler, claimed: Claimed) -> Performed:
        """Run a handler until it is done, rejects, or its policy gives it up. Raises nothing of the handler's."""
        content_type = incoming.envelope.content_type

        async def attempt() -> Performed:
            try:
                return performed(handler, await self._call(incoming, handler, context), content_type)
            except Reject as reject:
                return self._rejected(incoming, handler, reject)
            except BrokenPromise as error:
                return self.give_up(incoming, handler, error)
            except asyncio.CancelledError as error:
                if _is_being_cancelled():
                    raise
                raise _cancelled_within(handler) from error

        try:
            context = self._reader.context(incoming, claimed)
            return await repeat(self.policy_of(handler), attempt, self._sleep)
        except Exception as error:
            return self.give_up(incoming, handler, error)

    def perform_in(self, incoming: Incoming, handler: Handler, claimed: Claimed, session: Any) -> Performed:
        """Run a transactional handler once. Raises what the handler raises, but for `Reject`."""
        try:
            context = self._reader.context(incoming, claimed, session)
            result = handler.function(*_arguments(incoming, handler, context))
            if inspect.isawaitable(result):
                _dispose(result)
                raise BrokenPromise(
                    f"{handler.where} is transactional and returned an awaitable. Make it a plain function"
                )
            return performed(handler, result, incoming.envelope.content_type)
        except Reject as reject:
            return self._rejected(incoming, handler, reject)
        except BrokenPromise as error:
            return self.give_up(incoming, handler, error)
        except asyncio.CancelledError as error:
            raise _cancelled_within(handler) from error

    def give_up(self, incoming: Incoming, handler: Handler, error: Exception) -> Performed:
        """The outcome of a handler that is not tried again; says so in the log."""
        _log.warning(
            "a handler failed; the coordinator decides what comes next",
            handler=handler.where,
            effect_key=incoming.request.effect_key,
            attempt=incoming.envelope.attempt,
            stack=stack_of(error),
        )
        return failed(handler, error, incoming.envelope.content_type)

    def policy_of(self, handler: Handler) -> RetryPolicy | None:
        return handler.retry or self._policy

    def in_thread(self, handler: Handler) -> bool:
        """Whether this handler cannot be broken off."""
        return self._threads is not None and not handler.asynchronous and not handler.transactional

    def close(self) -> None:
        """Start no thread any more. Handlers that are in one go on to their end."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _rejected(self, incoming: Incoming, handler: Handler, reject: Reject) -> Performed:
        try:
            return rejected(handler, reject, incoming.envelope.content_type)
        except BrokenPromise as error:
            return self.give_up(incoming, handler, error)

    async def _call(self, incoming: Incoming, handler: Handler, context: Context[Any]) -> Any:
        arguments = _arguments(incoming, handler, context)
        if self.in_thread(handler):
            variables = contextvars.copy_context()
            result = await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: variables.run(_stoppable, handler.function, arguments)
            )
        elif handler.timeout_s is not None:
            async with asyncio.timeout(handler.timeout_s):
                return await handler.function(*arguments)
        else:
            result = handler.function(*arguments)
        return await result if inspect.isawaitable(result) else result


def _arguments(incoming: Incoming, handler: Handler, context: Context[Any]) -> tuple[Any, ...]:
    return (incoming.message, context) if handler.with_context else (incoming.message,)


def _stoppable(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except StopIteration as error:
        # no future can carry it
        raise RuntimeError("the handler raised StopIteration") from error


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _cancelled_within(handler: Handler) -> RuntimeError:
    """Nobody broke the handler off: what it waited for was cancelled. That is a failure like any other."""
    return RuntimeError(f"{handler.where} raised CancelledError, as a task or future that it awaits was cancelled")


def _dispose(awaitable: Any) -> None:
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
