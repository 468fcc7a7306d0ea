"""Sharing out the partitions among the members of a consumer group, so that as few as possible move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from amends.brokers.shares import share_out

_owned = msgspec.msgpack.Decoder(list[tuple[str, list[int]]])


class KeepingAssignor(AbstractPartitionAssignor):  # type: ignore[misc, unused-ignore]
    """Every member gets the same number of partitions of each topic it reads, give or take one, and keeps what it has.

    One object per member: each tells the leader of its group what it had last. All partitions are given up before a new
    assignment (Kafka's "eager" protocol).
    """

    name = "amends-keeping-1"

    def __init__(self) -> None:
        self._mine: list[tuple[str, list[int]]] = []

    def metadata(self, topics: Iterable[str]) -> Any:
        return ConsumerProtocolMemberMetadata(0, sorted(topics), msgspec.msgpack.encode(self._mine))

    def on_assignment(self, assignment: Any) -> None:
        self._mine = [(topic, list(partitions)) for topic, partitions in assignment.assignment]

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        """Called at the leader: the members' metadata in, their assignments out."""
        order = sorted(members)
        shares: dict[str, list[tuple[str, list[int]]]] = {member: [] for member in order}
        had = {member: dict(_read(members[member].user_data)) for member in order}
        for topic in sorted({topic for member in members.values() for topic in member.subscription}):
            takers = [index for index, member in enumerate(order) if topic in members[member].subscription]
            holders = {p: index for index in takers for p in had[order[index]].get(topic, ())}
            count = len(cluster.partitions_for_topic(topic) or ())
            for index, partitions in share_out(count, takers, holders).items():
                if partitions:
                    shares[order[index]].append((topic, sorted(partitions)))
        return {member: ConsumerProtocolMemberAssignment(0, share, b"") for member, share in shares.items()}


def _read(data: bytes | None) -> list[tuple[str, list[int]]]:
    try:
        return _owned.decode(data or b"\x90")
    except msgspec.MsgspecError:
        return []
