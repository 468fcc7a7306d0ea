"""What is committed for a partition: never past what is open, and enough to go on from."""

from __future__ import annotations

from typing import NamedTuple

import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from amends.brokers.kafka.notes import Note
from amends.brokers.kafka.partition import Item, Partition

TP = TopicPartition("t", 0)


class Record(NamedTuple):
    offset: int


def records(*offsets: int) -> list[Record]:
    return [Record(offset) for offset in offsets]


def take(partition: Partition, number: int) -> list[Item]:
    return [partition.take() for _ in range(number)]


def test_nothing_is_committed_before_anything_is_known() -> None:
    assert Partition(TP, None).progress() is None


def test_the_offset_stays_at_the_oldest_that_is_open() -> None:
    partition = Partition(TP, None)
    partition.add(records(5, 6, 7, 8))
    items = take(partition, 4)
    assert partition.progress() == (5, "")
    partition.done(items[1])
    partition.done(items[3])
    assert partition.progress() == (5, "amends1;1-2,3-4;")
    partition.done(items[0])
    assert partition.progress() == (7, "amends1;1-2;")
    partition.done(items[2])
    assert partition.progress() == (9, "")


def test_offsets_that_hold_no_record_do_not_stop_it() -> None:
    """Transactions leave such gaps."""
    partition = Partition(TP, 0)
    partition.add(records(0, 3, 9))
    for item in take(partition, 3):
        partition.done(item)
    assert partition.progress() == (10, "")


def test_parting_tells_how_often_the_open_ones_were_handed_out() -> None:
    partition = Partition(TP, 0)
    partition.add(records(0, 1, 2, 3))
    items = take(partition, 3)
    partition.put_back(items[:1])
    partition.take()
    partition.done(items[1])
    told = partition.progress(parting=True)
    assert told == (0, "amends1;1-2;0:2,2:1")
    heir = Partition(TP, 0, told)
    heir.add(records(0, 1, 2, 3))
    assert [(item.offset, item.deliveries) for item in take(heir, 3)] == [(0, 3), (2, 2), (3, 1)]


def test_a_note_is_kept_until_the_records_have_come() -> None:
    partition = Partition(TP, 10, (10, "amends1;1-3,5-6;0:2"))
    assert partition.progress() == (10, "amends1;1-3,5-6;0:2")
    partition.add(records(10, 11))
    assert partition.progress() == (10, "amends1;1-2,2-3,5-6;")
    partition.add(records(12, 13, 14, 15, 16))
    assert [item.offset for item in partition.waiting] == [10, 13, 14, 16]


def test_records_that_come_twice_are_taken_once() -> None:
    partition = Partition(TP, 0)
    partition.add(records(0, 1))
    partition.add(records(0, 1, 2))
    assert [item.offset for item in partition.waiting] == [0, 1, 2]


def test_it_is_full_when_much_waits_or_one_holds_up_the_rest() -> None:
    partition = Partition(TP, 0)
    partition.add(records(*range(1024)))
    assert partition.full
    items = take(partition, 1000)
    assert partition.has_room
    for start in range(1024, 10_000, 500):
        partition.add(records(*range(start, start + 500)))
        items += take(partition, len(partition.waiting))
    for item in items[1:]:
        partition.done(item)
    assert partition.full
    assert not partition.has_room
    partition.done(items[0])
    assert partition.has_room


@given(st.lists(st.tuples(st.sampled_from(["read", "take", "done", "back", "move"]), st.integers(0, 1000))))
def test_a_partition_that_moves_goes_on_with_exactly_what_is_not_acknowledged(steps: list[tuple[str, int]]) -> None:
    log = records(*(offset for offset in range(1000) if offset % 7))
    partition = Partition(TP, None)
    done: set[int] = set()
    in_hand: list[Item] = []
    for step, number in steps:
        match step:
            case "read":
                start = partition.next_offset or 0
                partition.add([r for r in log if r.offset >= start][: number % 20])
            case "take":
                in_hand += take(partition, min(number % 10, len(partition.waiting)))
            case "done" if in_hand:
                item = in_hand.pop(number % len(in_hand))
                partition.done(item)
                done.add(item.offset)
            case "back" if in_hand:
                partition.put_back([in_hand.pop(number % len(in_hand))])
            case "move":
                told = partition.progress(parting=bool(number % 2))
                partition = Partition(TP, told and told[0], told)
                in_hand = []
        told = partition.progress()
        if told is not None:
            note = Note.read(*told)
            known = {r.offset for r in log if r.offset < told[0] or r.offset in note}
            assert known == done
        assert sorted(item.offset for item in partition.waiting) == [item.offset for item in partition.waiting]
        assert partition.in_hand == len(in_hand)


@given(st.sets(st.integers(0, 30_000)), st.dictionaries(st.integers(0, 30_000), st.integers(1, 50)))
def test_notes_fit_and_say_nothing_that_is_not_so(offsets: set[int], counts: dict[int, int]) -> None:
    done = tuple((offset, offset + 1) for offset in sorted(offsets))
    text = Note(done, counts).write(0)
    assert len(text) <= 4096
    read = Note.read(0, text)
    assert {start for start, _ in read.done} <= offsets
    assert all(offset in read for offset, _ in read.done)
    assert read.deliveries.items() <= counts.items()
    if len(offsets) + len(counts) < 100:
        assert (read.done, read.deliveries) == (done, counts)


@pytest.mark.parametrize("text", ["", "something else", "amends1;", "amends1;a-b;", "amends2;1-2;"])
def test_what_is_no_note_of_ours_says_nothing(text: str) -> None:
    assert Note.read(5, text) == Note()
