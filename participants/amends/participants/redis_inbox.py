"""An inbox in Redis, shared by all processes of a service.

The rows are in one hash for each virtual slot of the effect key (`amends:{s0413}:inbox`), with the low-water mark under
the empty name. A row is loaded, decided about here, and stored if it is still the one that was loaded; else all of that
is done again. Each row begins with a token of the write that made it, so that a write whose answer got lost is
recognised when it is repeated. Counts of handlings are keys of their own, which expire.

Most rows need not be loaded: a new command finds none, and the end of a claim finds the claim. Both are believed at
first, as storing would fail were they wrong. A decision that stores nothing is only made of what was loaded.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from zlib import crc32

import msgspec
from msgspec import Struct

from amends.brokers.handlings import HANDLINGS_KEPT
from amends.brokers.redis_link import Call, RedisLink, RedisUnavailable, Script, ServerTime, command, read_url
from amends.contracts import Clock, TerminalError
from amends.contracts.names import SLOTS
from amends.participants.decisions import closing, opening
from amends.participants.memory_inbox import check_purge
from amends.participants.rows import Begin, Closing, ClosingAnswer, Opening, OpeningAnswer, Row

RequestT = TypeVar("RequestT", Opening, Closing)
AnswerT = TypeVar("AnswerT")

_LOAD: Final = Script(
    """
-- KEYS: the hash of each row. ARGV: their names. Answers for each: the row and the mark, or nil.
local answer = {}
for n = 1, #KEYS do
  local found = redis.call('HMGET', KEYS[n], ARGV[n], '')
  answer[2 * n - 1], answer[2 * n] = found[1], found[2]
end
return answer
""",
    "no-writes",
)

_STORE: Final = Script(
    """
-- KEYS: the hash of each row. ARGV for each: name, token and mark as they were found ('' for none), the new row.
-- Answers for each whether it is stored. A token has 8 bytes.
local answer = {}
for n = 1, #KEYS do
  local name, token, mark, row = unpack(ARGV, 4 * n - 3, 4 * n)
  local found = redis.call('HMGET', KEYS[n], name, '')
  local there = found[1] and string.sub(found[1], 1, 8) or ''
  answer[n] = 1
  if there ~= string.sub(row, 1, 8) then
    if there == token and (found[2] or '') == mark then
      redis.call('HSET', KEYS[n], name, row)
    else
      answer[n] = 0
    end
  end
end
return answer
"""
)

_PURGE: Final = Script(
    """
-- KEYS: a hash. ARGV: the moment, the cursor. Raises the mark, deletes what a piece of the hash has of older rows.
-- Answers the next cursor and how many were deleted.
local before, cursor = ARGV[1], ARGV[2]
if tonumber(redis.call('HGET', KEYS[1], '') or '-1') < tonumber(before) then
  redis.call('HSET', KEYS[1], '', before)
end
local found = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', 500)
local deleted = 0
for i = 1, #found[2], 2 do
  local name = found[2][i]
  if name ~= '' and tonumber(string.match(found[2][i + 1], '^........([^\\n]*)\\n')) < tonumber(before) then
    deleted = deleted + redis.call('HDEL', KEYS[1], name)
  end
end
return { found[1], deleted }
""",
    "allow-oom",
)

_RAISE: Final = Script(
    """
-- KEYS: the mark that is told to people. ARGV: the moment.
if tonumber(redis.call('GET', KEYS[1]) or '-1') < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
""",
    "allow-oom",
)

_MOST: Final = 64
_TRIES: Final = 3
"""How often a write of unknown outcome is repeated."""
_ROUNDS: Final = 30
_REMEMBERED: Final = 4096
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class _Found(Struct, frozen=True, gc=False):
    """A row as it was loaded, or is believed to be. Token and mark are empty when there is none."""

    row: Row | None
    token: bytes
    mark: bytes
    believed: bool = False


class RedisInbox:
    """An `Inbox` in Redis 7.0 or later, or Valkey: one server, a Sentinel service or a cluster. `RedisInbox.open`.

    Several services may share one: effect keys tell their effects apart. It has no transaction that handlers could
    share. How durable it is, Redis' own settings say (`appendfsync`), and `durability=` in the URL.
    """

    shared = True

    def __init__(self, link: RedisLink, clock: Clock | None = None) -> None:
        self._link = link
        self._time = ServerTime(link.time, clock)
        namespace = self._namespace = link.url.namespace
        self._hashes = [f"{namespace}:{{s{slot:04}}}:inbox" for slot in range(SLOTS)]
        self._mark = f"{namespace}:{{inbox}}:mark"
        self._claims: OrderedDict[str, _Found] = OrderedDict()
        self._marks: dict[str, bytes] = {}
        self._closed = False

    @classmethod
    async def open(cls, url: str, *, clock: Clock | None = None) -> RedisInbox:
        """Connect, and warn of settings that could lose rows. The URL is described at `read_url`.

        Time is the server's; tests give a `clock` instead. Raises `UsageError` and `RedisUnavailable`.
        """
        return cls(await RedisLink.open(read_url(url)), clock)

    async def begin(self, requests: Sequence[Opening]) -> Sequence[OpeningAnswer]:
        return await self._decide(requests, opening)

    async def finish(self, requests: Sequence[Closing]) -> Sequence[ClosingAnswer]:
        return await self._decide(requests, lambda row, request, now, mark: closing(row, request, now))

    async def _decide(
        self,
        requests: Sequence[RequestT],
        decide: Callable[[Row | None, RequestT, datetime, datetime | None], tuple[Row | None, AnswerT]],
    ) -> list[AnswerT]:
        answers: dict[int, AnswerT] = {}
        left = list(enumerate(requests))
        for n in range(_ROUNDS):
            found = self._recall([request for _, request in left], believe=n == 0)
            wanted = dict.fromkeys(request.effect_key for _, request in left)
            found |= await self._load([key for key in wanted if key not in found])
            now = await self._time.now()
            changed: dict[str, Row] = {}
            for index, request in left:
                key = request.effect_key
                before = found[key]
                row, answers[index] = decide(changed.get(key, before.row), request, now, _moment(before.mark))
                if row is not None:
                    changed[key] = row
            again = await self._store(changed, found)
            again |= {key for key, before in found.items() if before.believed and key not in changed}
            left = [(index, request) for index, request in left if request.effect_key in again]
            if not left:
                return [answers[index] for index in range(len(requests))]
            await asyncio.sleep(0.001 * n)
        raise RedisUnavailable(f"the inbox in Redis at {self._link.where} is fought over; ask again")

    def _hash(self, effect_key: str) -> str:
        return self._hashes[crc32(effect_key.encode()) % SLOTS]

    def _recall(self, requests: Sequence[Opening | Closing], *, believe: bool) -> dict[str, _Found]:
        """What is known without asking: the claims of this process, and that a new command has no row.

        A claim is given once: after this the row will be another one, or was not what it is believed to be.
        """
        recalled: dict[str, _Found] = {}
        for request in requests:
            key = request.effect_key
            claim = self._claims.pop(key, None)
            if not believe or key in recalled:
                continue
            if claim is not None:
                recalled[key] = claim
            elif isinstance(request, Begin) and (mark := self._marks.get(self._hash(key))) is not None:
                recalled[key] = _Found(None, b"", mark, believed=True)
        return recalled

    def _remember(self, key: str, row: Row, token: bytes, mark: bytes) -> None:
        if row.lease_until is not None:
            self._claims[key] = _Found(row, token, mark, believed=True)
            if len(self._claims) > _REMEMBERED:
                self._claims.popitem(last=False)

    async def _load(self, keys: Sequence[str]) -> dict[str, _Found]:
        groups = list(self._link.together(keys, self._hash, _MOST))
        calls = [_LOAD.call([self._hash(key) for key in group], group) for group in groups]
        found: dict[str, _Found] = {}
        # what is answered from a row must be as durable as the row that another process may just have written
        for group, answer in zip(groups, await self._link.run(calls, durable=True), strict=True):
            for key, data, mark in zip(group, answer[::2], answer[1::2], strict=True):
                row = None if data is None else _decode(key, data)
                found[key] = _Found(row, b"" if data is None else data[:8], mark or b"")
                self._marks[self._hash(key)] = mark or b""
        return found

    async def _store(self, changed: dict[str, Row], found: dict[str, _Found]) -> set[str]:
        """Store rows; give the keys of those that somebody else has changed meanwhile."""
        token = os.urandom(8)
        groups = list(self._link.together(list(changed), self._hash, _MOST))
        calls: list[Call] = []
        for group in groups:
            words: list[str | bytes] = []
            for key in group:
                words += (key, found[key].token, found[key].mark, token + _encode(changed[key]))
            calls.append(_STORE.call([self._hash(key) for key in group], words))
        overtaken: set[str] = set()
        for group, answer in zip(groups, await self._surely(calls), strict=True):
            for key, is_stored in zip(group, answer, strict=True):
                if is_stored:
                    self._remember(key, changed[key], token, found[key].mark)
                else:
                    overtaken.add(key)
        return overtaken

    async def _surely(self, calls: Sequence[Call]) -> list[list[int]]:
        """Run them; when nobody knows whether they were done, again. They recognise themselves by their token."""
        for attempt in range(1, _TRIES + 1):
            try:
                return await self._link.run(calls, durable=True)
            except RedisUnavailable:
                if attempt == _TRIES:
                    raise
                await asyncio.sleep(0.05 * attempt)
        raise AssertionError("unreachable")

    async def count_handlings(self, messages: Sequence[str]) -> None:
        kept_s = int(HANDLINGS_KEPT.total_seconds())
        calls: list[Call] = []
        for key in map(self._count, messages):
            calls += (command(key, "INCR", key), command(key, "EXPIRE", key, kept_s))
        await self._link.run(calls)

    async def handlings(self, messages: Sequence[str]) -> Sequence[int]:
        found = await self._link.run([command(key, "GET", key) for key in map(self._count, messages)])
        return [int(count or 0) for count in found]

    async def forget_handlings(self, messages: Sequence[str]) -> None:
        await self._link.run([command(key, "DEL", key) for key in map(self._count, messages)])

    def _count(self, message: str) -> str:
        return f"{self._namespace}:{{s{crc32(message.encode()) % SLOTS:04}}}:inbox-handling:{message}"

    async def purge(self, before: datetime) -> int:
        check_purge(before, await self._time.now())
        limit = _micros(before)
        await self._link.run([_RAISE.call([self._mark], [limit])], durable=True)
        purged = 0
        cursors = dict.fromkeys(self._hashes, b"0")
        # every hash a piece at a time, so that Redis is never kept for long
        while cursors:
            calls = [_PURGE.call([name], (limit, cursor)) for name, cursor in cursors.items()]
            answers = dict(zip(cursors, await self._link.run(calls), strict=True))
            purged += sum(deleted for _, deleted in answers.values())
            cursors = {name: cursor for name, (cursor, _) in answers.items() if cursor != b"0"}
        return purged

    async def low_water_mark(self) -> datetime | None:
        (mark,) = await self._link.run([command(self._mark, "GET", self._mark)])
        return _moment(mark or b"")

    async def ping(self) -> None:
        await self._link.probe([name.removesuffix("inbox") + "beat" for name in self._hashes])

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._link.close()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Row)


def _encode(row: Row) -> bytes:
    return b"%d\n%b" % (_micros(row.touched), _encoder.encode(row))


def _decode(key: str, data: bytes) -> Row:
    try:
        return _decoder.decode(data[8:].partition(b"\n")[2])
    except msgspec.MsgspecError as error:
        raise TerminalError(f"the inbox row of {key} cannot be read ({error}). Restore Redis from a backup") from None


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(mark: bytes) -> datetime | None:
    return _EPOCH + int(mark) * _MICROSECOND if mark else None
