"""Ids of commits, unique among all processes that ever wrote to a store; and incarnations of sagas, which are not."""

import secrets
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import count
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Ids:
    """Makes ids that are this maker's random prefix and a number. They hold neither `/` nor `~`."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(8)
        self._numbers = count(1)

    def next(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"


def incarnation_of(saga_id: str, input_hash: str, now: datetime, kept: timedelta | None) -> str:
    """The incarnation of a saga that starts now.

    A start that is sent again because the store has lost the first one gets the same: its effects then have the same
    keys, and the participants answer from their records instead of acting twice. A start with the same id and input
    after the ledger has forgotten them is another one, and gets another incarnation: `kept` is how long a ledger
    remembers at least (None: for ever), and each such span of time has its own. When in time the spans begin depends on
    the id, so that no moment is one for all.
    """
    span = 0
    if kept is not None:
        length = max(kept // timedelta(microseconds=1), 1)
        offset = int.from_bytes(blake2b(saga_id.encode(), digest_size=8).digest()) % length
        span = ((now - _EPOCH) // timedelta(microseconds=1) + offset) // length
    named = "\0".join((saga_id, input_hash, "" if kept is None else str(kept), str(span)))
    return blake2b(named.encode(), digest_size=9).hexdigest()
