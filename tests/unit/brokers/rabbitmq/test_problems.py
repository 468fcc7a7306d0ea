"""Errors of the client library in plain words."""

from __future__ import annotations

import asyncio

import pytest
from aiormq import exceptions

from amends.brokers import BrokerUnavailable
from amends.brokers.rabbitmq.problems import Server

SERVER = Server("host:5672/shop", "ada", "amends.v1")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (exceptions.ProbableAuthenticationError("ACCESS_REFUSED"), "refuses the user 'ada': wrong name or password"),
        (ConnectionRefusedError(111, "Connect call failed"), "host:5672/shop cannot be reached: Connect call failed"),
        (exceptions.AMQPConnectionError(111, "no route"), "cannot be reached: no route"),
        (
            exceptions.ChannelAccessRefused("access to queue 'x' refused"),
            r"lacks rights: access to queue 'x' refused. Give it configure, write and read on '^amends\\.v1\\.'",
        ),
        (exceptions.ChannelLockedResource("RESOURCE_LOCKED x"), "somebody else has what we need for himself"),
        (exceptions.ConnectionClosed(320, "CONNECTION_FORCED - shutdown"), "cannot do it now: CONNECTION_FORCED"),
        (TimeoutError(), "does not answer"),
        (exceptions.ChannelInvalidStateError("closed"), "the connection to RabbitMQ at host:5672/shop was lost"),
    ],
)
async def test_each_problem_says_where_and_what(error: Exception, says: str) -> None:
    with pytest.raises(BrokerUnavailable) as raised:
        async with SERVER.speaking():
            raise error
    assert says in str(raised.value)
    assert "RabbitMQ at host:5672/shop" in str(raised.value)


async def test_a_cancellation_by_the_library_is_a_lost_connection_and_our_own_stays_one() -> None:
    with pytest.raises(BrokerUnavailable, match="was lost"):
        async with SERVER.speaking():
            raise asyncio.CancelledError
    started = asyncio.Event()

    async def wait() -> None:
        async with SERVER.speaking():
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_takes_too_long_is_told() -> None:
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        async with SERVER.speaking(0.01):
            await asyncio.Event().wait()
