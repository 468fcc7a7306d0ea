"""What is committed for a partition: never past what is open, and enough to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.broker import envelope

from amends.brokers.kafka.items import Item
from amends.brokers.kafka.notes import Note, count_at, counted, reach_in
from amends.brokers.kafka.partition import Partition
from amends.brokers.kafka.wire import pack_of

TP = TopicPartition("t", 0)


class Record(NamedTuple):
    offset: int
    headers: Sequence[tuple[str, bytes]] = ()
    value: bytes = b""


def records(*offsets: int) -> list[Record]:
    return [Record(offset) for offset in offsets]


def pack(offset: int, size: int) -> Record:
    """With messages `7.0`, `7.1` and so on, when its offset is 7."""
    value, headers = pack_of([envelope(f"{offset}.{place}") for place in range(size)])
    return Record(offset, headers, value)


def name(item: Item) -> str:
    return str(item.offset) if item.part is None else f"{item.offset}.{item.place}"


def counted_partition(committed: tuple[int, str] | None = None, limit: int = 50, end: int | None = None) -> Partition:
    """Of a group."""
    return Partition(TP, committed[0] if committed else 0, committed, end=end, delivery_limit=limit)


def commit(partition: Partition, *, parting: bool = False) -> tuple[int, str]:
    told = partition.progress(parting=parting)
    assert told is not None
    partition.committed = told
    return told


def take_ready(partition: Partition) -> list[Item]:
    """All that may be handed out now."""
    taken = []
    while partition.ready:
        taken.append(partition.take())
    return taken


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
    assert partition.progress() == (5, "amends2;1-2,3-4;;;;")
    partition.done(items[0])
    assert partition.progress() == (7, "amends2;1-2;;;;")
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
    assert told == (0, "amends2;1-2;0-1:2,2-3:1;;;")
    heir = Partition(TP, 0, told)
    heir.add(records(0, 1, 2, 3))
    assert [(item.offset, item.deliveries) for item in take(heir, 3)] == [(0, 3), (2, 2), (3, 1)]


def test_a_note_is_kept_until_the_records_have_come() -> None:
    partition = Partition(TP, 10, (10, "amends2;1-3,5-6;0-1:2;4-5:1;;"))
    assert partition.progress() == (10, "amends2;1-3,5-6;0-1:2;4-5:1;;")
    partition.add(records(10, 11))
    assert partition.progress() == (10, "amends2;1-2,2-3,5-6;0-1:2;4-5:1;;")
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


def test_nothing_is_handed_out_before_kafka_knows_that_it_may_be() -> None:
    partition = counted_partition()
    partition.add(records(*range(200)))
    assert take_ready(partition) == []
    assert partition.wants_commit
    assert commit(partition) == (0, "amends2;;;;;264")
    assert not partition.wants_commit
    assert len(take_ready(partition)) == 200
    partition.add(records(*range(200, 1200)))
    assert partition.wants_commit
    commit(partition)
    assert len(take_ready(partition)) == 512


def test_what_a_dead_consumer_may_have_had_in_hand_counts_as_handed_out() -> None:
    partition = counted_partition()
    partition.add(records(*range(10)))
    commit(partition)
    taken = take_ready(partition)
    for item in taken[:3]:
        partition.done(item)
    told = commit(partition)
    heir = counted_partition(told, end=12)
    heir.add(records(*range(3, 100)))
    commit(heir)
    assert [item.deliveries for item in take_ready(heir)] == [2] * 9 + [1] * 88
    orderly = counted_partition(commit(partition, parting=True))
    orderly.add(records(*range(3, 100)))
    commit(orderly)
    counts = {item.offset: item.deliveries for item in take_ready(orderly)}
    assert [counts[offset] for offset in (3, 9, 10, 99)] == [2, 2, 1, 1]


def test_a_pack_is_settled_when_all_of_it_is() -> None:
    partition = counted_partition()
    partition.add([pack(0, 3), *records(1)])
    commit(partition)
    items = take_ready(partition)
    assert [name(item) for item in items] == ["0.0", "0.1", "0.2", "1"]
    for item in (items[2], items[0], items[3]):
        partition.done(item)
        assert commit(partition)[0] == 0
    partition.done(items[1])
    assert commit(partition)[0] == 2


def test_a_pack_that_moves_goes_on_with_what_is_left_of_it() -> None:
    partition = counted_partition()
    partition.add([pack(0, 4)])
    commit(partition)
    items = [partition.take() for _ in range(3)]
    partition.done(items[1])
    told = commit(partition, parting=True)
    heir = counted_partition(told)
    heir.add([pack(0, 4)])
    commit(heir)
    assert heir.to_split == []
    assert [(name(item), item.deliveries) for item in take_ready(heir)] == [("0.0", 2), ("0.2", 2), ("0.3", 1)]


def test_what_is_left_of_a_pack_is_split_when_its_consumer_has_died() -> None:
    partition = counted_partition()
    partition.add([pack(0, 4), pack(1, 2)])
    commit(partition)
    items = [partition.take() for _ in range(2)]
    partition.done(items[0])
    told = commit(partition)
    heir = counted_partition(told)
    heir.add([pack(0, 4), pack(1, 2), *records(2)])
    commit(heir)
    assert [name(item) for item in take_ready(heir)] == ["2"]
    parts = [[part.envelope.id for part in p.parts if part.envelope] for p in heir.to_split]
    assert parts == [["0.1", "0.2", "0.3"], ["1.0", "1.1"]]
    assert [p.deliveries for p in heir.to_split] == [1, 1]
    for found in list(heir.to_split):
        heir.split(found)
    assert commit(heir)[0] == 2


def test_a_message_that_was_split_off_is_delivered_the_second_time() -> None:
    partition = counted_partition()
    partition.add([Record(0, [("amends-split", b"1")]), Record(1, [("amends-split", b"many")])])
    commit(partition)
    assert [item.deliveries for item in take_ready(partition)] == [2, 1]
    heir = counted_partition(commit(partition))
    heir.add([Record(0, [("amends-split", b"1")])])
    commit(heir)
    assert [item.deliveries for item in take_ready(heir)] == [3]


@pytest.mark.parametrize("limit", [2, 3, 5, 50])
def test_a_message_that_kills_every_consumer_is_found_out_and_no_other_is_blamed_for_it(limit: int) -> None:
    """The one at 7 does it, as soon as it is handed out."""
    log = records(*range(20))
    told: tuple[int, str] | None = None
    handed: dict[int, list[int]] = {offset: [] for offset in range(20)}
    for _ in range(limit + 5):
        partition = counted_partition(told, limit)
        partition.add([record for record in log if told is None or record.offset >= told[0]])
        dead = False
        while partition.waiting and not dead:
            told = commit(partition)
            for item in take_ready(partition):
                handed[item.offset].append(item.deliveries)
                if item.offset == 7 and item.deliveries <= limit:
                    dead = True
                    break
                partition.done(item)
        if not dead:
            break
    else:
        pytest.fail("it goes on for ever")
    assert commit(partition)[0] == 20
    assert handed[7][-1] == limit + 1
    assert all(counts[-1] <= limit for offset, counts in handed.items() if offset != 7)


def test_a_suspect_is_handed_out_alone_and_blamed_alone() -> None:
    partition = counted_partition((0, "amends2;;0-3:2;0-3:2;;"))
    partition.add(records(*range(6)))
    for offset in range(3):
        assert commit(partition) == (offset, commit(partition)[1])
        (item,) = take_ready(partition)
        assert (item.offset, item.deliveries) == (offset, 3)
        heir = counted_partition(partition.committed)
        heir.add(records(*range(offset, 6)))
        deaths = [int(word.deaths) for word in heir.waiting]
        assert deaths == [3] + [2] * (2 - offset) + [0] * 3
        partition.done(item)
    commit(partition)
    assert len(take_ready(partition)) == 3


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["read", "take", "done", "back", "commit", "split", "move", "crash"]), st.integers(0)
        ),
        max_size=60,
    )
)
def test_whatever_happens_every_message_comes_until_it_is_acknowledged(steps: list[tuple[str, int]]) -> None:
    """Packs and singles; consumers that hand over, and that die."""
    log = [pack(offset, 3) if offset % 3 else Record(offset) for offset in range(200)]
    everything = {name for r in log for name in ([f"{r.offset}.{n}" for n in range(3)] if r.value else [str(r.offset)])}
    partition, done, handed = counted_partition(), set[str](), dict[str, int]()
    kept: set[str] = set()
    in_hand: list[Item] = []
    for step, number in steps:
        match step:
            case "read":
                start = partition.next_offset or 0
                partition.add([r for r in log if r.offset >= start][: number % 20])
            case "take":
                while partition.ready and number % 10:
                    item = partition.take()
                    in_hand.append(item)
                    handed[name(item)] = handed.get(name(item), 0) + 1
                    assert item.deliveries >= handed[name(item)]
                    assert name(item) not in kept
                    number -= 1
            case "done" if in_hand:
                item = in_hand.pop(number % len(in_hand))
                partition.done(item)
                done.add(name(item))
            case "back" if in_hand:
                partition.put_back([in_hand.pop(number % len(in_hand))])
            case "commit":
                commit(partition)
                kept = set(done)
            case "split":
                for found in list(partition.to_split):
                    ids = [part.envelope.id for part in found.parts if part.envelope]
                    assert not kept.intersection(ids)
                    done.update(ids)
                    partition.split(found)
            case "move" | "crash":
                told = commit(partition, parting=True) if step == "move" else partition.committed
                kept = set(done) if step == "move" else kept
                done = set(kept)
                partition, in_hand = counted_partition(told), []
    # what is left comes, now that all goes well
    partition.add([r for r in log if r.offset >= (partition.next_offset or 0)])
    for found in list(partition.to_split):
        done.update(part.envelope.id for part in found.parts if part.envelope)
        partition.split(found)
    while partition.waiting or in_hand:
        commit(partition)
        in_hand += take_ready(partition)
        for item in in_hand:
            partition.done(item)
            done.add(name(item))
        in_hand = []
    assert done == everything
    assert commit(partition)[0] == 200


@given(
    st.sets(st.integers(0, 30_000)),
    st.dictionaries(st.integers(0, 30_000), st.integers(1, 50)),
    st.dictionaries(st.integers(0, 30_000), st.tuples(st.integers(1, 2**32), st.integers(0, 2**32))),
    st.none() | st.integers(0, 30_000),
)
def test_notes_fit_and_say_nothing_that_is_not_so(
    offsets: set[int], numbers: dict[int, int], parts: dict[int, tuple[int, int]], reach: int | None
) -> None:
    done = tuple((offset, offset + 1) for offset in sorted(offsets))
    counts = tuple((offset, offset + 1, number) for offset, number in sorted(numbers.items()))
    written = Note(done, counts, counts, parts, reach)
    text = written.write(0)
    assert len(text) <= 4096
    read = Note.read(0, text)
    assert {start for start, _ in read.done} <= offsets
    assert all(offset in read for offset, _ in read.done)
    assert set(read.deliveries) | set(read.deaths) <= set(counts)
    assert read.parts.items() <= parts.items()
    assert read.reach == reach
    if reach is not None:
        assert reach_in(0, text) == reach
    if len(offsets) + len(counts) + len(parts) < 50:
        assert read == written


@given(st.dictionaries(st.integers(0, 40), st.integers(1, 5)), st.integers(0, 20), st.integers(1, 40))
def test_everything_within_the_reach_of_the_dead_is_one_more(numbers: dict[int, int], start: int, length: int) -> None:
    counts = counted((offset, numbers.get(offset, 0)) for offset in range(60))
    heir = Note(deliveries=counts, deaths=counts, reach=start + length).inherited(start, 1000)
    assert Note(reach=start + length).inherited(start, start + 1) == Note(
        deliveries=((start, start + 1, 1),), deaths=((start, start + 1, 1),)
    )
    for offset in range(70):
        expected = numbers.get(offset, 0) + (start <= offset < start + length)
        assert count_at(heir.deliveries, offset) == count_at(heir.deaths, offset) == expected
    assert heir.reach is None


@pytest.mark.parametrize("text", ["", "something else", "amends2;", "amends2;a-b;;;;", "amends1;1-2;"])
def test_what_is_no_note_of_ours_says_nothing(text: str) -> None:
    assert Note.read(5, text) == Note()
