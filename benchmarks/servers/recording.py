"""What amends says and writes in the life of an order, recorded once from amends itself, for loops that only repeat it.

Two orders are run on a broker in memory and a real Redis: one that is shipped and one that is refused and undone. Kept
are the messages and the writes to Redis, in their order, not what was only read. A repetition puts the number of
another order in place of the recorded one, which is as long.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, msgpack

from amends.brokers import MemoryBroker, Outgoing
from amends.brokers.redis_link import Call, RedisLink, Script, read_url
from amends.brokers.redis_link.nodes import Nodes
from amends.brokers.redis_link.urls import RedisUrl
from amends.contracts import Envelope, Kind, slot_of
from amends.contracts.names import client_address
from amends.contracts.payloads import Notice
from amends.coordinator import Coordinator
from amends.coordinator.stores.redis import RedisStore
from amends.coordinator.stores.redis.scripts import CLEAR, COMMIT
from amends.coordinator.wire import notice
from amends.participants.redis_inbox import RedisInbox
from benchmarks.load import ended, start_message
from benchmarks.order import PlaceOrder, shop_with_claims

_READS: Final = "no-writes"
_LOOK_S: Final = 0.01
_TAG: Final = re.compile(rb"\{s\d{4}\}")
_SHIPPED: Final = 0
_REFUSED: Final = 9


class Write(Struct, frozen=True, array_like=True):
    """A script call about one saga or effect, with the words of the call apart from those about the one."""

    sha: bytes
    keys: list[bytes]
    head: list[bytes]
    words: list[bytes]


class Life(Struct, frozen=True, array_like=True):
    """One order. `arrivals[n]` is what the coordinator then stores as `commits[n]` and, but for the last, answers with
    `commands[n]`; of which the participant makes `claims[n]` and `outcomes[n]`, and then `arrivals[n + 1]`.
    """

    arrivals: list[Envelope]
    commits: list[Write]
    commands: list[Envelope]
    clears: list[Write]
    claims: list[Write]
    outcomes: list[Write]
    end: Envelope


class Recording(Struct, frozen=True):
    """The lives of an order that is shipped and of one that is refused, and the texts of the scripts they call.

    Both are in the words of order 0.
    """

    shipped: Life
    refused: Life
    scripts: list[str]

    def of(self, number: int) -> Life:
        return self.refused if number % 10 == _REFUSED else self.shipped

    def save(self, file: Path) -> None:
        file.write_bytes(msgpack.encode(self))

    @classmethod
    def load(cls, file: Path) -> Recording:
        return msgpack.decode(file.read_bytes(), type=cls)


def order_id(number: int) -> str:
    """Of the same length for every number up to a million."""
    return f"order-{number:06d}"


@lru_cache(8192)
def names(number: int) -> tuple[bytes, bytes]:
    """What is different in the texts about another order: its id and its slot's tag in keys."""
    id = order_id(number)
    return id.encode(), b"{s%04d}" % slot_of(id)


async def record(redis: str) -> Recording:
    """Run both orders. The Redis is to be emptied afterwards."""
    shipped, refused = await _live(redis, _SHIPPED), await _live(redis, _REFUSED)
    return Recording(shipped[0], refused[0], sorted(shipped[1] | refused[1]))


async def _live(redis: str, number: int) -> tuple[Life, set[str]]:
    store_tape, inbox_tape, broker = await _Tape.open(read_url(redis)), await _Tape.open(read_url(redis)), _Broker()
    store, inbox = RedisStore(store_tape), RedisInbox(inbox_tape)
    try:
        before = await ended(store)
        async with (
            Coordinator([PlaceOrder], broker=broker, store=store).running(),
            shop_with_claims().running(broker, inbox=inbox),
        ):
            await broker.publish([start_message(number)])
            while True:
                await asyncio.sleep(_LOOK_S)
                if await ended(store) > before:
                    break
    finally:
        await inbox.close()
        await store.close()
    writes = [*store_tape.writes, *inbox_tape.writes]
    return _life(number, broker.sent, store_tape.writes, inbox_tape.writes), {script.text for _, script in writes}


class _Tape(RedisLink):
    """A connection that remembers the scripts that wrote."""

    def __init__(self, url: RedisUrl, nodes: Nodes) -> None:
        super().__init__(url, nodes)
        self.writes: list[tuple[Call, Script]] = []

    @classmethod
    async def open(cls, url: RedisUrl) -> _Tape:
        tape = await super().open(url)
        assert isinstance(tape, cls)
        return tape

    async def run(self, calls: Sequence[Call], *, durable: bool = False) -> list[Any]:
        for call in calls:
            # a probe is no part of any order
            if call.script and _READS not in call.script.text.partition("\n")[0] and not call.key.endswith(":beat"):
                self.writes.append((call, call.script))
        return await super().run(calls, durable=durable)


class _Broker(MemoryBroker):
    """Remembers what was published."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Envelope] = []

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self.sent += [message.envelope for message in messages]
        await super().publish(messages)


def _life(
    number: int, sent: list[Envelope], stored: list[tuple[Call, Script]], inbox: list[tuple[Call, Script]]
) -> Life:
    commits = [write for call, script in stored if script is COMMIT for write in _writes(number, call, 1, 1)]
    cleared = [call for call, script in stored if script is CLEAR]
    clears = [write for call in cleared for write in _writes(number, call, call.words[2] // 2)]
    rows = [write for call, _ in inbox for write in _writes(number, call, 1)]
    arrivals = [_anyone(number, envelope) for envelope in sent if envelope.kind in (Kind.START, Kind.REPLY)]
    commands = [_anyone(number, envelope) for envelope in sent if envelope.kind in (Kind.COMMAND, Kind.UNDO)]
    assert len(commits) == len(arrivals) == len(commands) + 1
    assert len(rows) == 2 * len(commands) == 2 * len(clears)
    told = notice(client_address("load"), order_id(0), Notice(what="ended"), "start", "end", arrivals[0].time)
    return Life(arrivals, commits, commands, clears, rows[::2], rows[1::2], told.envelope)


def _writes(number: int, call: Call, count: int, head: int = 0) -> list[Write]:
    """The parts of a call that is about `count` things."""
    _, sha, keys, *rest = (_anyone_bytes(number, word) for word in call.words)
    ends = int(keys)
    each, many = ends // count, (len(rest) - ends - head) // count
    words = rest[ends + head :]
    return [
        Write(sha, rest[n * each : (n + 1) * each], rest[ends : ends + head], words[n * many : (n + 1) * many])
        for n in range(count)
    ]


def _anyone_bytes(number: int, word: str | bytes | int) -> bytes:
    """A word as it would be for order 0; its effects too are said to be in its own slot."""
    raw = word if isinstance(word, bytes) else str(word).encode()
    id, tag = names(0)
    return _TAG.sub(tag, raw.replace(names(number)[0], id))


def _anyone(number: int, envelope: Envelope) -> Envelope:
    return msgpack.decode(_anyone_bytes(number, msgpack.encode(envelope)), type=Envelope)
