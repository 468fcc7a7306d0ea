"""How far a consumer is behind, for whoever looks after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from msgspec import Struct

from amends.brokers.kafka.partition import Partition

log = structlog.get_logger("amends.brokers")

_LATE_S: Final = 30.0
_TELL_EVERY_S: Final = 60.0


class Lag(Struct, frozen=True):
    """What a consumer has not settled: `unread` records are still in Kafka, `waiting` messages are here and not handed
    out, `in_hand` are being handled. The oldest of those that are here was published `oldest_s` ago and is at
    `oldest_at`, as topic/partition/offset."""

    unread: int = 0
    waiting: int = 0
    in_hand: int = 0
    oldest_s: float = 0.0
    oldest_at: str = ""


def lag_of(partitions: Mapping[TopicPartition, Partition], ends: Mapping[TopicPartition, int], now_s: float) -> Lag:
    """Of one consumer. `ends` are where Kafka's next records will be, as far as that is known."""
    unread = sum(
        max(0, ends[tp] - partition.next_offset)
        for tp, partition in partitions.items()
        if tp in ends and partition.next_offset is not None
    )
    oldest = _oldest(partitions)
    return Lag(
        unread=unread,
        waiting=sum(len(partition.waiting) for partition in partitions.values()),
        in_hand=sum(partition.in_hand for partition in partitions.values()),
        oldest_s=_age(oldest, now_s),
        oldest_at=f"{oldest.topic}/{oldest.partition}/{oldest.offset}" if oldest is not None else "",
    )


def is_late(partitions: Mapping[TopicPartition, Partition], now_s: float) -> bool:
    """Whether it should be told how far behind the consumer is."""
    return _age(_oldest(partitions), now_s) >= _LATE_S


def _oldest(partitions: Mapping[TopicPartition, Partition]) -> Any:
    records = [partition.oldest for partition in partitions.values() if partition.oldest is not None]
    return min(records, key=lambda record: record.timestamp, default=None)


def _age(record: Any, now_s: float) -> float:
    return max(0.0, now_s - record.timestamp / 1000) if record is not None else 0.0


class LagReport:
    """Says in the log, now and then, that a consumer is late, and once that it no longer is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told_at: float | None = None

    def is_due(self, *, late: bool, now_s: float) -> bool:
        """Whether there is something to tell now."""
        if late:
            return self._told_at is None or now_s - self._told_at >= _TELL_EVERY_S
        return self._told_at is not None

    def tell(self, lag: Lag, now_s: float) -> None:
        if lag.oldest_s < _LATE_S:
            self._told_at = None
            log.info("a consumer has caught up", consumer=self._name)
            return
        self._told_at = now_s
        log.warning(
            "a consumer is behind",
            consumer=self._name,
            unread=lag.unread,
            waiting=lag.waiting,
            in_hand=lag.in_hand,
            oldest_s=round(lag.oldest_s),
            oldest_at=lag.oldest_at,
        )
