"""Many together, or one alone."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from amends.participants.gate import Gate

PATIENT = timedelta(hours=1)


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_that_is_alone_waits_for_those_inside_and_keeps_others_out() -> None:
    gate = Gate(PATIENT)
    await gate.acquire()
    await gate.acquire()
    alone = asyncio.ensure_future(gate.acquire_alone())
    await turn()
    later = asyncio.ensure_future(gate.acquire())
    gate.release()
    await turn()
    assert not alone.done()
    assert not later.done()
    gate.release()
    await alone
    await turn()
    assert not later.done()
    gate.release_alone()
    await later


async def test_those_that_want_to_be_alone_go_one_after_the_other_before_all_others() -> None:
    gate = Gate(PATIENT)
    await gate.acquire_alone()
    others = asyncio.ensure_future(gate.acquire())
    second = asyncio.ensure_future(gate.acquire_alone())
    await turn()
    assert not second.done()
    gate.release_alone()
    await second
    await turn()
    assert not others.done()
    gate.release_alone()
    await others


async def test_one_that_gives_up_waiting_lets_the_others_in() -> None:
    gate = Gate(PATIENT)
    await gate.acquire()
    alone = asyncio.ensure_future(gate.acquire_alone())
    await turn()
    others = asyncio.ensure_future(gate.acquire())
    alone.cancel()
    await asyncio.wait({alone})
    await others
    gate.release()
    gate.release()
    await gate.acquire_alone()


async def test_patience_has_an_end() -> None:
    gate = Gate(timedelta(0))
    await gate.acquire()
    await gate.acquire_alone()
    gate.release_alone()
    await gate.acquire()
