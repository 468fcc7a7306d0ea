"""Names on the wire and in storage. They are fixed for ever: what is pinned here must never change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amends.contracts import EffectKey, InvalidIdError, UsageError, slot_of
from amends.contracts.names import (
    SLOTS,
    check_saga_id,
    client_address,
    command_key,
    is_reply_address,
    is_wire_name,
    kebab,
    run_key,
    service_address,
    slot_address,
    topic_address,
)


@pytest.mark.parametrize(
    ("saga_id", "slot"),
    [
        ("123456789", 0xCBF43926 % 1024),  # the check value that is published with CRC-32
        ("", 0),
        ("order-1", 1007),
        ("order-42", 734),
        ("größe", 393),
        ("订单", 947),
        ("a" * 200, 88),
    ],
)
def test_slots_are_fixed_for_ever(saga_id: str, slot: int) -> None:
    assert slot_of(saga_id) == slot


@given(st.text(max_size=50))
def test_every_id_has_a_slot(saga_id: str) -> None:
    try:
        saga_id.encode()
    except UnicodeEncodeError:
        return
    assert 0 <= slot_of(saga_id) < SLOTS == 1024


ids = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]*", fullmatch=True)
keys = st.builds(
    EffectKey,
    saga_id=ids,
    incarnation=st.from_regex(r"[a-z0-9-]+", fullmatch=True),
    step=names,
    visit=st.integers(0, 999),
    item=st.none() | st.integers(0, 99999),
)


@given(keys)
def test_an_effect_key_can_be_read_back(key: EffectKey) -> None:
    assert EffectKey.parse(str(key)) == key


@given(keys, keys)
def test_different_effects_have_different_keys(one: EffectKey, other: EffectKey) -> None:
    assert (str(one) == str(other)) == (one == other)


def test_an_effect_key_is_written_as_the_protocol_says() -> None:
    assert str(EffectKey("order-1", "i1", "charge")) == "order-1~i1/charge#0"
    assert str(EffectKey("a~b/c", "i1", "pick", 2, 3)) == "a~b/c~i1/pick#2/3"
    assert EffectKey("order-1", "i1", "pick", 2, 3).run == run_key("pick", 2, 3) == "pick#2/3"
    assert command_key("order-1~i1/charge#0", 2) == "order-1~i1/charge#0@2"


@pytest.mark.parametrize("text", ["", "order-1", "order-1~i1", "a~i/b#x", "a~i/b#0/c/d", "a~i/b#0/x"])
def test_what_is_no_effect_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"effect key|invalid literal"):
        EffectKey.parse(text)


@pytest.mark.parametrize(
    ("name", "kebabed"),
    [
        ("ReserveStock", "reserve-stock"),
        ("HTTPCheck", "http-check"),
        ("CheckHTTP", "check-http"),
        ("V2Order", "v2-order"),
        ("order", "order"),
        ("Order2Place", "order2-place"),
    ],
)
def test_class_names_become_kebab_case(name: str, kebabed: str) -> None:
    assert kebab(name) == kebabed


@pytest.mark.parametrize("name", ["a", "place-order", "shop.place_order", "V1", "_x", "9"])
def test_names_that_brokers_take(name: str) -> None:
    assert is_wire_name(name)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "größe", "-a", ".a", "a\n", None, 3])
def test_names_that_brokers_do_not_take(name: object) -> None:
    assert not is_wire_name(name)


@pytest.mark.parametrize("saga_id", ["1", "order 1", "größe/~#", "x" * 200])
def test_ids_may_be_almost_anything(saga_id: str) -> None:
    assert check_saga_id(saga_id) == saga_id


@pytest.mark.parametrize(
    ("saga_id", "problem"),
    [("", "is empty"), ("x" * 201, "has 201 characters"), ("a\nb", "holds a character that cannot be printed")],
)
def test_ids_that_cannot_name_a_saga(saga_id: str, problem: str) -> None:
    with pytest.raises(InvalidIdError, match=problem) as caught:
        check_saga_id(saga_id)
    assert (caught.value.saga_id, caught.value.problem) == (saga_id, problem)
    assert isinstance(caught.value, UsageError)


def test_addresses_are_fixed_for_ever() -> None:
    assert service_address("inventory") == "service:inventory"
    assert slot_address(7) == "slot:0007"
    assert slot_address(1023) == "slot:1023"
    assert client_address("c1") == "client:c1"
    assert topic_address("order-placed.v1") == "event:order-placed.v1"


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (service_address("shop"), True),
        (client_address("c1"), True),
        (slot_address(0), True),
        (slot_address(SLOTS - 1), True),
        (f"slot:{SLOTS}", False),
        ("slot:12", False),
        ("slot:00010", False),
        (topic_address("paid.v1"), False),
        ("service:", False),
        ("nowhere", False),
        ("", False),
    ],
)
def test_answers_go_to_services_clients_and_slots_that_exist(text: str, is_one: bool) -> None:
    assert is_reply_address(text) is is_one
