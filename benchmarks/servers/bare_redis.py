"""The recorded writes to Redis, for other orders: up to 64 in a script call, the calls of a batch in one write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

from hiredis import pack_command
from redis.asyncio import Connection, Redis
from redis.exceptions import ResponseError

from benchmarks.servers.letters import Letter
from benchmarks.servers.recording import Recording, Write, names

Kind: TypeAlias = Literal["commits", "clears", "claims", "outcomes"]

_MOST: Final = 64


class Rows:
    """Makes the writes of one process."""

    def __init__(self, redis: Redis, connections: list[Connection], recording: Recording) -> None:
        self._redis, self._free, self._recording = redis, connections, recording

    @classmethod
    async def open(cls, url: str, recording: Recording) -> Rows:
        redis = Redis.from_url(url, protocol=2)
        for script in recording.scripts:
            await redis.script_load(script)
        return cls(redis, [], recording)

    async def write(self, *writes: tuple[Kind, Sequence[Letter]]) -> None:
        """Make the writes of these kinds for these letters, in one go."""
        calls = [
            self._call(kind, letters[at : at + _MOST])
            for kind, letters in writes
            for at in range(0, len(letters), _MOST)
        ]
        if not calls:
            return
        pool = self._redis.connection_pool
        connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call, unused-ignore]
        try:
            await connection.send_packed_command(b"".join([pack_command(call) for call in calls]))
            for _ in calls:
                answer = await connection.read_response()
                if isinstance(answer, ResponseError):
                    raise answer
        finally:
            await pool.release(connection)

    def _call(self, kind: Kind, letters: Sequence[Letter]) -> tuple[Any, ...]:
        keys: list[bytes] = []
        words: list[bytes] = []
        for letter in letters:
            write: Write = getattr(self._recording.of(letter.number), kind)[letter.place]
            id, tag = names(letter.number)
            keys += [key.replace(_TAG, tag).replace(_ID, id) for key in write.keys]
            words += [word.replace(_ID, id) for word in write.words]
        return (b"EVALSHA", write.sha, len(keys), *keys, *write.head, *words)

    async def close(self) -> None:
        await self._redis.aclose()


_ID, _TAG = names(0)
