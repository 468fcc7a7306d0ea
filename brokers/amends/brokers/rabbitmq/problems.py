"""What goes wrong with RabbitMQ, in plain words."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiormq import exceptions
from msgspec import Struct

from amends.brokers.port import BrokerUnavailable

BROKEN: Final = (exceptions.AMQPError, exceptions.ChannelInvalidStateError, OSError, TimeoutError, RuntimeError)
"""What the client library raises when the broker is away, says no, or went away in the middle."""


PATIENCE_S: Final = 60.0
"""How long an answer may take; a queue whose leader is being elected keeps everybody waiting."""


class Server(Struct, frozen=True):
    """Whom we speak to, as people are told: `where` is host, port and virtual host."""

    where: str
    user: str
    prefix: str

    @asynccontextmanager
    async def speaking(self, patience_s: float = PATIENCE_S) -> AsyncIterator[None]:
        """Raise `BrokerUnavailable` for whatever goes wrong in the block, or when it takes longer than `patience_s`."""
        try:
            async with asyncio.timeout(patience_s):
                yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # nobody cancelled us: so does the library end what waits on a channel that closes
            raise self.lost() from None
        except BROKEN as error:
            raise self.explain(error) from error

    def lost(self) -> BrokerUnavailable:
        return BrokerUnavailable(f"the connection to RabbitMQ at {self.where} was lost")

    def explain(self, error: BaseException) -> BrokerUnavailable:
        """An error of the library as ours."""
        return BrokerUnavailable(self._words(error))

    def _words(self, error: BaseException) -> str:
        text = _text(error)
        match error:
            case exceptions.ProbableAuthenticationError() | exceptions.AuthenticationError():
                return (
                    f"RabbitMQ at {self.where} refuses the user {self.user!r}: wrong name or password "
                    "(the user guest may only come from the broker's own machine)"
                )
            case exceptions.ChannelAccessRefused():
                rights = f"^{re.escape(self.prefix)}\\."
                return (
                    f"RabbitMQ at {self.where}: the user {self.user!r} lacks rights: {text}. "
                    f"Give it configure, write and read on {rights!r}, and write on the default exchange"
                )
            case exceptions.ChannelLockedResource():
                return f"RabbitMQ at {self.where}: somebody else has what we need for himself: {text}"
            case exceptions.InvalidFrameError() if "Connection.Close" in text:
                # the library does not pass on why
                return (
                    f"RabbitMQ at {self.where} does not let the user {self.user!r} in: there is no such virtual host, "
                    "or the user has no rights in it"
                )
            case exceptions.ConnectionClosed() | exceptions.AMQPChannelError():
                return f"RabbitMQ at {self.where} cannot do it now: {text}"
            case TimeoutError():
                return f"RabbitMQ at {self.where} does not answer"
            case OSError():
                return f"RabbitMQ at {self.where} cannot be reached: {text}"
            case exceptions.ChannelInvalidStateError():
                return f"the connection to RabbitMQ at {self.where} was lost"
        return f"RabbitMQ at {self.where}: {text}"


def _text(error: BaseException) -> str:
    """What the error says; the library often keeps it as the last of several arguments."""
    words = [str(argument) for argument in error.args if isinstance(argument, str | bytes)]
    return (words[-1] if words else str(error)).strip() or type(error).__name__
