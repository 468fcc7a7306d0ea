"""What users type as data."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from amends.contracts import UsageError
from amends.coordinator import Saga
from amends.coordinator.cli.inputs import plain_input, read_fields, read_json, read_key, read_moment, saga_input


class Address(msgspec.Struct):
    street: str


class Order(Saga):
    sku: str
    quantity: int = 1
    gift: bool = False
    note: str | None = None
    tags: list[str] = []
    address: Address | None = None


@pytest.mark.parametrize(
    ("pair", "field", "value"),
    [
        ("sku=007", "sku", "007"),
        ("sku=a=b", "sku", "a=b"),
        ("sku=", "sku", ""),
        ("quantity=2", "quantity", 2),
        ("gift=true", "gift", True),
        ("note=hello", "note", "hello"),
        ("note=null", "note", "null"),
        ("address=null", "address", None),
        ('tags=["a", "b"]', "tags", ["a", "b"]),
        ('address={"street": "Main"}', "address", Address("Main")),
    ],
)
def test_a_value_for_a_class_is_read_as_the_type_of_its_field(pair: str, field: str, value: object) -> None:
    pairs = [pair] if field == "sku" else ["sku=x", pair]
    assert getattr(saga_input(Order, None, pairs), field) == value


@pytest.mark.parametrize(
    ("text", "value"), [("2", 2), ("true", True), ("book", "book"), ('"007"', "007"), ("[1]", [1]), ("{", "{")]
)
def test_a_value_without_a_class_is_json_where_it_can_be(text: str, value: object) -> None:
    assert plain_input(None, [f"x={text}"], "input") == {"x": value}


def test_fields_come_on_top_of_json() -> None:
    assert plain_input('{"a": 1, "b": 2}', ["b=3"], "input") == {"a": 1, "b": 3}
    assert saga_input(Order, '{"sku": "x", "quantity": 1}', ["quantity=3"]).quantity == 3


@pytest.mark.parametrize(
    ("json", "pairs", "problem"),
    [
        (None, ["sku=x", "quantity=two"], r"Order\.quantity='two': Expected `int`"),
        (None, ["sku=x", "quantitty=2"], r"Order has no field 'quantitty'\. Did you mean quantity\?"),
        (None, ["sku=x", "zzz=2"], "It has: sku, quantity, gift, note, tags, address"),
        (None, [], "Order: Object missing required field `sku`"),
        ('{"sku": 1}', [], r"Order: Expected `str`, got `int` - at `\$\.sku`"),
        ("{sku}", [], "--input is no JSON"),
        ("[1]", [], r"--input must be a JSON object such as .* not \[1\]"),
    ],
)
def test_input_that_is_wrong_is_refused_by_field(json: str | None, pairs: list[str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        saga_input(Order, json, pairs)


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [(["sku"], "'sku' is no field=value"), (["=x"], "'=x' is no field=value"), (["a=1", "a=2"], "a= is given twice")],
)
def test_what_is_no_field_and_value_is_refused(pairs: list[str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        read_fields(pairs)


def test_json_comes_from_a_file_or_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "order.json").write_text('{"sku": "x"}')
    assert read_json(f"@{tmp_path}/order.json", "--input") == {"sku": "x"}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"sku": "y"}'))
    assert read_json("-", "--input") == {"sku": "y"}


@pytest.mark.parametrize("content", [b"{", b"\xff", None])
def test_a_file_that_holds_no_json_is_named(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "order.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"order\.json"):
        read_json(f"@{path}", "--input")


def test_a_business_key_is_a_name_and_a_value() -> None:
    assert read_key("order_id=a=b") == ("order_id", "a=b")
    assert read_key(None) is None
    with pytest.raises(UsageError, match="'order_id' is no field=value"):
        read_key("order_id")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:30", datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
        ("2026-01-31 12:30:05", datetime(2026, 1, 31, 12, 30, 5, tzinfo=UTC)),
        ("2026-01-31T12:30+01:00", datetime(2026, 1, 31, 11, 30, tzinfo=UTC)),
        ("2026-01-31T12:30Z", datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
    ],
)
def test_a_moment_is_in_utc_unless_it_says_otherwise(text: str, moment: datetime) -> None:
    assert read_moment(text, "--since") == moment


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800)])
def test_a_moment_may_be_so_long_ago(text: str, seconds: int) -> None:
    found = read_moment(text, "--since")
    assert found is not None
    ago = datetime.now(UTC) - found
    assert timedelta(seconds=seconds) <= ago < timedelta(seconds=seconds + 60)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "h", "-2h", "9" * 9 + "w"])
def test_what_is_no_moment_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(UsageError, match=r"--since.*(is no moment\. Write|beginning of the calendar)"):
        read_moment(text, "--since")
