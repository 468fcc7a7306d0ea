"""Sharing out partitions in a group."""

from __future__ import annotations

import pytest

pytest.importorskip("aiokafka")

from amends.brokers.kafka.assignor import KeepingAssignor


class Cluster:
    def __init__(self, **topics: int) -> None:
        self.topics = topics

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self.topics[topic])) if topic in self.topics else None


def share(cluster: Cluster, members: dict[str, tuple[KeepingAssignor, list[str]]]) -> dict[str, dict[str, list[int]]]:
    asked = {}
    for member, (assignor, topics) in members.items():
        metadata = assignor.metadata(topics)
        asked[member] = type(metadata).decode(metadata.encode())
    given = KeepingAssignor().assign(cluster, asked)
    for member, assignment in given.items():
        members[member][0].on_assignment(type(assignment).decode(assignment.encode()))
    return {member: dict(assignment.assignment) for member, assignment in given.items()}


def test_only_the_surplus_moves_when_members_come_and_go() -> None:
    cluster = Cluster(t=8)
    members = {"a": (KeepingAssignor(), ["t"])}
    assert share(cluster, members) == {"a": {"t": [*range(8)]}}
    members["b"] = (KeepingAssignor(), ["t"])
    two = share(cluster, members)
    assert [len(two[m]["t"]) for m in "ab"] == [4, 4]
    members["0 comes first"] = (KeepingAssignor(), ["t"])
    three = share(cluster, members)
    assert [len(three[m]["t"]) for m in ("a", "b", "0 comes first")] == [3, 3, 2]
    for member in "ab":
        assert set(three[member]["t"]) < set(two[member]["t"])
    del members["a"]
    left = share(cluster, members)
    assert set(left["b"]["t"]) > set(three["b"]["t"])
    assert sorted(left["b"]["t"] + left["0 comes first"]["t"]) == [*range(8)]


def test_each_topic_goes_to_those_who_ask_for_it() -> None:
    members = {"old": (KeepingAssignor(), ["a"]), "new": (KeepingAssignor(), ["a", "b"])}
    shares = share(Cluster(a=4, b=2), members)
    assert [len(shares["old"]["a"]), len(shares["new"]["a"])] == [2, 2]
    assert shares["new"]["b"] == [0, 1]
    assert "b" not in shares["old"]


def test_topics_that_are_not_there_and_members_without_a_part_are_no_harm() -> None:
    members = {name: (KeepingAssignor(), ["t", "gone"]) for name in "abc"}
    shares = share(Cluster(t=2), members)
    assert sorted(len(s.get("t", [])) for s in shares.values()) == [0, 1, 1]


def test_what_a_member_says_it_had_may_be_nonsense() -> None:
    member = KeepingAssignor()
    metadata = member.metadata(["t"])
    metadata.user_data = b"\xff nonsense"
    given = member.assign(Cluster(t=3), {"a": metadata})
    assert dict(given["a"].assignment) == {"t": [0, 1, 2]}


def test_topics_of_one_size_are_shared_out_alike_so_that_a_key_stays_with_one_member() -> None:
    """Of a service, single messages and packs lie in two."""
    cluster = Cluster(singles=8, packs=8)
    members: dict[str, tuple[KeepingAssignor, list[str]]] = {}
    for come, go in [("m", ""), ("b", ""), ("z", ""), ("a", "m"), ("c", ""), ("", "z"), ("d", "b")]:
        if come:
            members[come] = (KeepingAssignor(), ["packs", "singles"])
        members.pop(go, None)
        for mine in share(cluster, members).values():
            assert mine["singles"] == mine["packs"]
