"""The commands that speak to sagas, against a shop that runs in another process."""

from __future__ import annotations

import getpass
import itertools
from pathlib import Path

import pytest
from tests.support.processes import SHOP
from tests.unit.coordinator.cli.conftest import Amends

_numbers = itertools.count(1)


@pytest.fixture
def saga_id() -> str:
    return f"ask-{next(_numbers)}"


def start(in_shop: Amends, saga_id: str, *arguments: str) -> None:
    started = in_shop("start", "place-order", "sku=book", *arguments, "--id", saga_id)
    assert started.code in (0, 1), started


def test_a_saga_is_started_by_name_and_waited_for(in_shop: Amends, saga_id: str) -> None:
    ended = in_shop("start", "place-order", "sku=book", "quantity=2", "--id", saga_id, "--wait")
    assert (ended.code, ended.out, ended.err) == (0, f"{saga_id}: completed\n", "")


def test_a_saga_is_started_by_its_class(in_shop: Amends, saga_id: str) -> None:
    document = in_shop("start", f"{SHOP}:PlaceOrder", "sku=007", "--id", saga_id, "--wait", "--json").json
    assert (document["status"], document["existing"]) == ("completed", False)
    assert document["state"]["tracking"] == "post-007"


def test_input_comes_as_json_too(in_shop: Amends, saga_id: str, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('{"sku": "book", "quantity": 3}')
    input = f"@{tmp_path}/order.json"
    document = in_shop("start", "place-order", "--input", input, "--id", saga_id, "--wait", "--json").json
    assert document["state"]["reservation_id"] == "3 of book"


def test_a_saga_that_went_back_exits_with_1_and_says_why(in_shop: Amends, saga_id: str) -> None:
    ended = in_shop("start", "place-order", "sku=unicorn", "--id", saga_id, "--wait")
    assert ended.code == 1
    assert ended.out.startswith(f"{saga_id}: compensated\n  because of out-of-stock.v1")
    again = in_shop("wait", saga_id, "--json")
    assert (again.code, again.json["status"], again.json["failure"]["error"]) == (1, "compensated", "out-of-stock.v1")


def test_a_start_is_repeated_without_harm_and_not_with_another_input(in_shop: Amends, saga_id: str) -> None:
    start(in_shop, saga_id)
    again = in_shop("start", "place-order", "sku=book", "--id", saga_id)
    assert (again.code, again.out) == (0, f"{saga_id}: is there already, with this input\n")
    assert in_shop("start", "place-order", "sku=book", "--id", saga_id, "--json").json == {
        "id": saga_id, "existing": True
    }  # fmt: skip
    other = in_shop("start", "place-order", "sku=pen", "--id", saga_id)
    assert (other.code, other.out) == (3, "")
    assert f"saga id '{saga_id}' is taken by another saga or input" in other.err


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["lost", "sku=x"], 3, "saga lost is not loaded here; loaded: place-order.v1"),
        (["place-order"], 3, "missing required field `sku`"),
        (["place-order", "sku=7"], 3, "Expected `str`, got `int` - at `$.sku`"),
        (["place-order", "sku=x", "quantitty=1"], 3, "unknown field `quantitty`"),
        (["place-order", "sku"], 2, "'sku' is no field=value"),
        (["place-order", "sku=x", "--wait", "30"], 2, "Write --within SECONDS"),
        ([f"{SHOP}:PlaceOrder"], 2, "missing required field `sku`"),
        ([f"{SHOP}:PlaceOrder", "sku=x", "quantity=two"], 2, "PlaceOrder.quantity='two': Expected `int`"),
        ([f"{SHOP}:PlaceOrder", "sku=x", "--version", "1"], 2, "a class has its own version"),
        ([f"{SHOP}:PlaceOrdr", "sku=x"], 2, "Did you mean PlaceOrder?"),
        (["lost_module:PlaceOrder", "sku=x"], 2, "there is no module 'lost_module'"),
    ],
)
def test_a_start_that_cannot_be_says_what_is_wrong(
    in_shop: Amends, arguments: list[str], code: int, problem: str
) -> None:
    ended = in_shop("start", *arguments, "--id", "never-started")
    assert (ended.code, ended.out) == (code, "")
    assert problem in ended.err
    assert in_shop("show", "never-started").code == 4


def test_an_id_that_cannot_be_one_is_refused(in_shop: Amends) -> None:
    ended = in_shop("start", "place-order", "sku=x", "--id", "")
    assert (ended.code, "saga id '' is empty" in ended.err) == (2, True)


def test_waiting_ends_at_its_limit_and_tells_that_the_saga_goes_on(in_shop: Amends, saga_id: str) -> None:
    ended = in_shop("start", "place-order", "sku=book", "needs_approval=true", "--id", saga_id, "--within", "0.05")
    assert (ended.code, ended.out) == (5, "")
    assert f"saga '{saga_id}' is still running after 0.05 s" in ended.err


def test_a_signal_reaches_the_step_that_awaits_it(in_shop: Amends, saga_id: str) -> None:
    start(in_shop, saga_id, "needs_approval=true")
    assert in_shop("signal", saga_id, "approve.v1", "by=ada", "--message-id", "s1").out == f"{saga_id}: signalled\n"
    ended = in_shop("wait", saga_id, "--json")
    assert (ended.code, ended.json["state"]["approved_by"]) == (0, "ada")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["aprove.v1", "by=ada"], "does not await aprove.v1: no step ever does; its steps await approve.v1"),
        (["approve.v1"], "missing required field `by`"),
        (["approve.v1", '{"by": 1}'], "Expected `str`, got `int` - at `$.by`"),
    ],
)
def test_a_signal_that_cannot_be_heard_is_refused(
    in_shop: Amends, saga_id: str, arguments: list[str], problem: str
) -> None:
    start(in_shop, saga_id, "needs_approval=true")
    ended = in_shop("signal", saga_id, *arguments)
    assert (ended.code, ended.out) == (3, "")
    assert problem in ended.err
    assert in_shop("signal", saga_id, "approve.v1", '{"by": "ada"}').code == 0


def test_a_saga_is_paused_resumed_and_cancelled(in_shop: Amends, saga_id: str) -> None:
    start(in_shop, saga_id, "needs_approval=true")
    assert in_shop("pause", saga_id, "--reason", "stocktaking", "--by", "ada").out == f"{saga_id}: paused\n"
    assert in_shop("show", saga_id, "--json").json["paused"] is True
    assert in_shop("resume", saga_id).code == 0
    assert in_shop("cancel", saga_id, "--reason", "changed her mind").code == 0
    ended = in_shop("wait", saga_id, "--json")
    assert (ended.code, ended.json["failure"]) == (1, {"error": "cancelled", "message": "changed her mind"})
    journal = in_shop("journal", saga_id).out
    assert "ada: stocktaking" in journal
    assert f"{getpass.getuser()}: changed her mind" in journal


def test_a_cancel_that_comes_too_late_is_refused(in_shop: Amends, saga_id: str) -> None:
    start(in_shop, saga_id, "carrier=ufo", "--wait")
    ended = in_shop("cancel", saga_id, "--reason", "x")
    assert (ended.code, ended.out) == (3, "")
    assert "too late: charge is done" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("signal", "nobody", "approve.v1", "by=x"),
        ("cancel", "nobody", "--reason", "x"),
        ("pause", "nobody"),
        ("resume", "nobody"),
        ("retry", "nobody"),
        ("skip", "nobody", "ship", "--reason", "x"),
        ("resolve", "nobody", "ship", "--back", "--reason", "x"),
        ("wait", "nobody"),
    ],
)
def test_a_saga_that_is_not_there_has_its_own_exit_code(in_shop: Amends, arguments: tuple[str, ...]) -> None:
    ended = in_shop(*arguments)
    assert (ended.code, ended.out) == (4, "")
    assert "there is no saga 'nobody'" in ended.err


def test_a_stuck_saga_is_told_of_while_waiting(in_shop: Amends, saga_id: str) -> None:
    ended = in_shop("start", "place-order", "sku=book", "carrier=ufo", "--id", saga_id, "--wait")
    assert (ended.code, ended.out) == (1, f"{saga_id}: running, stuck\n")
    assert "is stuck: look with `amends show`, then retry, skip or resolve the step" in ended.err


def test_a_stuck_step_is_retried_and_resolved_forward_with_its_reply(in_shop: Amends, saga_id: str) -> None:
    start(in_shop, saga_id, "carrier=ufo", "--wait")
    version = in_shop("show", saga_id, "--json").json["version"]
    moved = in_shop("retry", saga_id, "--saw", str(version - 1))
    assert (moved.code, "the saga has moved on" in moved.err) == (3, True)
    assert in_shop("retry", saga_id, "ship", "--saw", str(version)).code == 0
    assert in_shop("wait", saga_id).code == 1
    forward = ("resolve", saga_id, "ship", "--forward", "--reason", "flew it myself")
    bare = in_shop(*forward)
    assert (bare.code, "needs the reply" in bare.err) == (3, True)
    untyped = in_shop(*forward, "--reply", "{}")
    assert (untyped.code, "--reply needs --type" in untyped.err) == (2, True)
    wrong = in_shop(*forward, "--type", "shipped.v1", "--reply", "{}")
    assert (wrong.code, "`tracking`" in wrong.err) == (3, True)
    assert in_shop(*forward, "--type", "shipped.v1", "--reply", '{"tracking": "ufo-1"}').code == 0
    ended = in_shop("wait", saga_id, "--json")
    assert (ended.code, ended.json["state"]["tracking"]) == (0, "ufo-1")


def test_a_stuck_step_is_skipped_and_stays_on_the_record(in_shop: Amends, saga_id: str) -> None:
    start(in_shop, saga_id, "carrier=ufo", "--wait")
    unknown = in_shop("skip", saga_id, "shipp", "--reason", "x")
    assert (unknown.code, "step 'shipp' is not stuck; stuck steps: ship" in unknown.err) == (3, True)
    assert in_shop("skip", saga_id, "ship", "--reason", "picked up", "--by", "ada").code == 0
    ended = in_shop("wait", saga_id)
    assert (ended.code, ended.out) == (0, f"{saga_id}: completed\n  waived ship#0, by ada: picked up\n")
    assert in_shop("list", "--waived", "--json").json["sagas"][0]["id"] == saga_id


def test_a_reply_goes_with_forward_only(in_shop: Amends) -> None:
    ended = in_shop("resolve", "x", "y", "--back", "--reason", "z", "--reply", "{}")
    assert (ended.code, "--reply and --type go with --forward" in ended.err) == (2, True)


def test_waiting_for_an_end_is_bounded_by_within_alone(amends: Amends) -> None:
    refused = amends("wait", "x", "--timeout", "1")
    assert (refused.code, "No such option: --timeout" in refused.err) == (2, True)


def test_a_question_that_nobody_answers_can_be_asked_again(amends: Amends) -> None:
    ended = amends("start", "place-order", "sku=x", "--id", "x", "--timeout", "0.1")
    assert (ended.code, ended.out) == (5, "")
    assert "no coordinator answered for saga 'x' within 0.1 s" in ended.err
