"""Which messages go together, and what of a pack is still open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.contract.broker import envelope

from amends.brokers.packing import FEWEST, MOST, MOST_BYTES, OpenPack, grouped, parts_of
from amends.contracts import Envelope
from amends.contracts.packs import PACK_TYPE, write_pack


def sized(size: int) -> Envelope:
    return replace(envelope("m"), data=b"x" * size)


def test_few_messages_to_one_destination_go_one_by_one_however_many_there_are_to_others() -> None:
    destinations = ["a"] * (FEWEST - 1) + ["b"] * FEWEST
    groups = grouped(destinations, [envelope("m")] * len(destinations))
    assert sorted(groups) == [[0], [1], [2], [3, 4, 5, 6]]


def test_what_has_no_destination_for_packs_goes_alone() -> None:
    assert grouped([None] * 50, [envelope("m")] * 50) == [[number] for number in range(50)]


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=200))
def test_every_message_goes_once_in_order_and_no_pack_is_too_large_or_too_small(destinations: list[str | None]) -> None:
    groups = grouped(destinations, [envelope("m")] * len(destinations))
    assert sorted(number for group in groups for number in group) == list(range(len(destinations)))
    for destination in {"a", "b", "c"} & set(destinations):
        mine = [group for group in groups if destinations[group[0]] == destination]
        numbers = [number for group in mine for number in group]
        assert numbers == [number for number, where in enumerate(destinations) if where == destination]
        assert all(len(group) <= MOST for group in mine)
        assert {len(group) >= FEWEST for group in mine} == {len(numbers) >= FEWEST}


def test_large_messages_make_small_packs() -> None:
    groups = grouped(["a"] * 10, [sized(MOST_BYTES // 5)] * 10)
    assert [len(group) for group in groups] == [3, 3, 3, 1]
    assert grouped(["a"] * 4, [sized(MOST_BYTES)] * 4) == [[0], [1], [2], [3]]


@pytest.mark.parametrize("body", [b"", b"garbage", b"{}", b"[]"])
def test_a_body_that_is_no_pack_is_one_part_that_cannot_be_read(body: bytes) -> None:
    (part,) = parts_of(PACK_TYPE, body) or []
    assert (part.envelope, part.body) == (None, body)
    assert part.problem


def test_a_single_message_has_no_parts() -> None:
    assert parts_of("application/json", b"[]") is None
    assert parts_of(None, b"") is None


def test_a_pack_is_settled_with_the_last_of_its_parts_in_whatever_order() -> None:
    parts = parts_of(PACK_TYPE, write_pack([envelope(str(number)) for number in range(3)])) or []
    pack = OpenPack(parts)
    assert not pack.touched
    assert not pack.settle(1)
    assert not pack.settle(1)
    assert pack.touched
    assert [part.envelope.id for part in pack.left if part.envelope] == ["0", "2"]
    assert not pack.settle(2)
    assert pack.settle(0)
    assert pack.left == []
