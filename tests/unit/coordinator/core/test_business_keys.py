"""What a saga can be found by is taken from its state at every commit."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.unit.coordinator.core.kit import Charge, Charged, Play

from amends.contracts import UsageError
from amends.coordinator import Saga, SagaQuery, step
from amends.coordinator.declaration.definition import Definition
from amends.coordinator.declaration.keys import key_text
from amends.coordinator.declaration.saga import definition_of


class Colour(Enum):
    RED = "red"
    SEVEN = 7


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ada", "ada"),
        (42, "42"),
        (True, "true"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (date(2026, 1, 31), "2026-01-31"),
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00Z"),
        (Colour.RED, "red"),
        (Colour.SEVEN, "7"),
        (None, ""),
        ("x" * 201, "x" * 200),
    ],
)
def test_the_text_of_a_value_is_what_json_writes(value: Any, text: str) -> None:
    assert key_text(value) == text


class Order(Saga, keys=("order_id", "customer", "receipt", "note")):
    order_id: int
    customer: str
    receipt: str | None = None
    note: str = ""

    @step(readonly=True)
    def charge(self) -> Charge:
        return Charge(amount=self.order_id)

    @charge.on_success
    def charged(self, reply: Charged) -> None:
        self.receipt = f"r-{self.order_id}"


def test_a_start_has_the_keys_of_its_input_without_those_that_are_empty() -> None:
    assert Play(Order(order_id=42, customer="ada")).snapshot.keys == {"order_id": "42", "customer": "ada"}


def test_a_field_that_is_filled_in_later_becomes_a_key_with_that_commit() -> None:
    play = Play(Order(order_id=42, customer="ada"))
    play.done("charge", Charged())
    assert play.snapshot.keys == {"order_id": "42", "customer": "ada", "receipt": "r-42"}


def test_a_release_with_other_keys_finds_running_sagas_by_them_after_their_next_commit() -> None:
    play = Play(Order(order_id=42, customer="ada"))
    changed: Definition = msgspec.structs.replace(definition_of(Order), keys=("customer",))
    assert changed.shape == definition_of(Order).shape
    play.definition = changed
    play.done("charge", Charged())
    assert play.snapshot.keys == {"customer": "ada"}


def test_a_saga_without_keys_has_none() -> None:
    class Plain(Order): ...

    assert definition_of(Plain).keys == ()
    assert Play(Plain(order_id=1, customer="ada")).snapshot.keys == {}


def test_a_query_without_time_zone_is_refused_with_what_to_write() -> None:
    with pytest.raises(UsageError, match=r"started_after=2026-01-31.*tzinfo=UTC"):
        SagaQuery(started_after=datetime(2026, 1, 31))


def test_the_value_of_a_query_is_cut_like_that_of_a_key() -> None:
    assert SagaQuery(key=("k", "x" * 300)).key == ("k", "x" * 200)
