"""The commands that look: at sagas, dead letters, classes and settings."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import SHOP
from tests.support.processes import amends as run
from tests.unit.coordinator.cli.conftest import Amends
from tests.unit.coordinator.core.kit import Charge, Charged, Play

from amends.brokers import Outgoing
from amends.brokers.connect import connect_broker
from amends.contracts import Envelope, Kind, slot_of
from amends.contracts.names import slot_address
from amends.coordinator import Saga, step
from amends.coordinator.cli.looking import _show
from amends.coordinator.cli.output import Output
from amends.coordinator.cli.records import snapshot_record


@pytest.fixture(scope="module")
def orders(shop: Path) -> Path:
    """The folder of the shop with a few orders: one completed, one undone, one waiting, one stuck."""
    for saga_id, *fields in (
        ("look-completed", "sku=book"),
        ("look-undone", "sku=book", "amount=2000"),
        ("look-stuck", "sku=book", "carrier=ufo"),
    ):
        ended = run("start", "place-order", *fields, "--id", saga_id, "--wait", cwd=shop)
        assert ended.returncode in (0, 1), ended
    run("start", "place-order", "sku=book", "needs_approval=true", "--id", "look-waiting", cwd=shop)
    assert any(_awaits_approval(shop) for _ in range(60))
    return shop


def _awaits_approval(shop: Path) -> bool:
    shown = json.loads(run("show", "look-waiting", "--json", cwd=shop).stdout)
    return "awaiting" in [step["status"] for step in shown["steps"]]


@pytest.fixture
def look(amends: Amends, orders: Path) -> Amends:
    return lambda *arguments: amends(*arguments, cwd=orders)


def ids(document: dict[str, Any]) -> list[str]:
    return [saga["id"] for saga in document["sagas"]]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], ["look-waiting", "look-stuck", "look-undone", "look-completed"]),
        (["--oldest"], ["look-completed", "look-undone", "look-stuck", "look-waiting"]),
        (["--phase", "running"], ["look-waiting", "look-stuck"]),
        (["--phase", "compensated"], ["look-undone"]),
        (["--stuck"], ["look-stuck"]),
        (["--not-stuck", "--phase", "running"], ["look-waiting"]),
        (["--paused"], []),
        (["--saga", "place-order", "--limit", "1"], ["look-waiting"]),
        (["--saga", "other"], []),
        (["--key", "sku=book"], ["look-waiting", "look-stuck", "look-undone", "look-completed"]),
        (["--key", "sku=book", "--stuck"], ["look-stuck"]),
        (["--key", "tracking=post-book"], ["look-completed"]),
        (["--key", "sku=boo"], []),
        (["--since", "1h"], ["look-waiting", "look-stuck", "look-undone", "look-completed"]),
        (["--since", "2025-01-31", "--until", "2025-02-01T00:00+01:00"], []),
        (["--until", "1h", "--key", "sku=book"], []),
    ],
)
def test_list_filters(look: Amends, filters: list[str], expected: list[str]) -> None:
    listed = look("list", "--id-prefix", "look-", "--json", *filters)
    assert (listed.code, ids(listed.json)) == (0, expected)
    assert listed.json["more"] is ("--limit" in filters)
    if "--limit" not in filters and "--oldest" not in filters:
        counted = look("count", "--id-prefix", "look-", "--json", *filters)
        assert counted.json == {"count": len(expected)}


def test_list_shows_a_line_for_each_saga(look: Amends) -> None:
    listed = look("list", "--id-prefix", "look-stuck")
    header, line = listed.out.splitlines()
    assert header.split() == ["id", "saga", "phase", "started", "updated", "keys"]
    assert line.endswith("  sku=book")
    assert line.startswith("look-stuck  place-order  running, stuck  20")
    assert look("list", "--id-prefix", "look-", "--limit", "2").out.endswith("give --limit\n")
    assert look("list", "--id-prefix", "none-").out == "no sagas\n"


def test_the_fields_of_a_list_are_these(look: Amends) -> None:
    (saga,) = look("list", "--id-prefix", "look-waiting", "--json").json["sagas"]
    assert set(saga) == {
        "id", "saga", "definition_version", "phase", "stuck", "paused", "waived", "version", "started_at", "updated_at",
        "next_timer_at", "keys",
    }  # fmt: skip
    assert saga["keys"] == {"sku": "book"}
    assert datetime.fromisoformat(saga["started_at"]).utcoffset() is not None


def test_show_tells_where_a_saga_stands(look: Amends) -> None:
    document = look("show", "look-stuck", "--json").json
    assert (document["phase"], document["stuck"], document["remaining"]) == ("running", True, None)
    assert [(run["step"], run["status"]) for run in document["steps"]] == [
        ("reserve", "done"), ("approve", "skipped"), ("charge", "done"), ("ship", "stuck")
    ]  # fmt: skip
    ship = document["steps"][-1]
    assert ship["failure"]["error"] == "no-carrier.v1"
    assert ship["command"] == {
        "type": "shipping.ship-order.v1", "data": {"$type": "shipping.ship-order.v1", "sku": "book", "carrier": "ufo"}
    }  # fmt: skip
    assert document["state"]["reservation_id"] == "1 of book"


def test_show_tells_what_remains_when_it_knows_the_class(look: Amends) -> None:
    shown = look("show", "look-waiting", "--module", SHOP, "--json").json
    assert shown["remaining"] == ["charge", "ship"]
    assert [timer["what"] for timer in shown["timers"]] == ["approve#0: end of the wait"]
    lines = look("show", "look-waiting", "--module", SHOP).out.splitlines()
    assert [line.split() for line in lines if "not reached" in line] == [
        ["charge", "not", "reached"], ["ship", "not", "reached"]
    ]  # fmt: skip
    assert any(line.startswith("approve  awaiting approve.v1") for line in lines)


def test_show_remains_nothing_once_it_has_gone_back(look: Amends) -> None:
    shown = look("show", "look-undone", "--module", SHOP, "--json").json
    assert (shown["remaining"], shown["phase"], shown["failure"]["error"]) == ([], "compensated", "card-declined.v1")
    assert "goes back because of card-declined.v1" in look("show", "look-undone").out


def test_show_tells_that_commits_may_be_lost_and_what_is_known_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    class Pay(Saga):
        @step(pivot=True)
        def charge(self) -> Charge:
            return Charge()

    play = Play(Pay())
    _show(Output(json=False), play.snapshot, None)
    assert "lost" not in capsys.readouterr().out
    assert snapshot_record(play.snapshot, None)["suspect"] is None
    del play.snapshot.runs["charge#0"]
    play.roll_back()
    play.done("charge", Charged())
    _show(Output(json=False), play.snapshot, None)
    told = capsys.readouterr().out
    assert "commits after 2026-01-01 00:00:00 UTC may be lost, and its participants are asked: it was failed" in told
    assert "its pivot was done in a lost commit: it only goes forward\n" in told
    suspect = snapshot_record(play.snapshot, None)["suspect"]
    assert (suspect["why"], suspect["committed"]) == ("it was failed over", True)


def test_show_tells_why_it_will_go_back_once_its_pivot_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    class Pay(Saga):
        @step(pivot=True)
        def charge(self) -> Charge:
            return Charge()

    play = Play(Pay())
    play.cancel("changed my mind")
    _show(Output(json=False), play.snapshot, None)
    told = capsys.readouterr().out
    assert "will go back, unless its pivot is done, because of cancelled: changed my mind\n" in told


def test_show_refuses_a_module_without_the_class(look: Amends, tmp_path: Path) -> None:
    (tmp_path / "others.py").write_text("from amends.coordinator import Saga\nclass Other(Saga): ...")
    shown = look("show", "look-stuck", "--module", str(tmp_path / "others.py"))
    assert (shown.code, shown.out) == (2, "")
    assert "'look-stuck' is a place-order version 1, which --module does not hold; it holds other.v1" in shown.err


def test_journal_tells_what_happened(look: Amends) -> None:
    document = look("journal", "look-undone", "--json").json
    told = [entry["what"] for record in document["records"] for entry in record["entries"]]
    assert told[0] == "started"
    assert told[-1] == "compensated"
    assert "step-rejected" in told
    assert [record["version"] for record in document["records"]] == list(range(1, len(document["records"]) + 1))
    lines = look("journal", "look-undone").out.splitlines()
    assert lines[0].split() == ["version", "at", "what", "step", "detail"]
    assert len(lines) == len(told) + 1


def test_journal_at_a_version_tells_how_the_saga_stood(look: Amends) -> None:
    then = look("journal", "look-undone", "--at", "1", "--json").json["moment"]
    assert (then["phase"], then["steps"]) == ("running", {"reserve#0": "step-issued"})
    assert then["state"]["reservation_id"] is None
    assert look("journal", "look-undone", "--at", "2").out.startswith("look-undone: running, at version 2\n")
    refused = look("journal", "look-undone", "--at", "99")
    assert (refused.code, "there is no version 99" in refused.err) == (2, True)


def test_timers_are_listed_by_what_is_due_next(look: Amends) -> None:
    listed = look("timers", "list", "--json").json["timers"]
    assert "look-waiting" in [timer["id"] for timer in listed]
    assert "look-stuck" not in [timer["id"] for timer in listed]
    assert [timer["next_timer_at"] for timer in listed] == sorted(timer["next_timer_at"] for timer in listed)


@pytest.mark.parametrize("arguments", [("show", "nobody"), ("journal", "nobody"), ("journal", "nobody", "--at", "1")])
def test_an_unknown_id_has_its_own_exit_code(look: Amends, arguments: tuple[str, ...]) -> None:
    ended = look(*arguments)
    assert (ended.code, ended.out, ended.err) == (4, "", "amends: there is no saga 'nobody'\n")


@pytest.mark.parametrize("arguments", [("list",), ("count",), ("timers", "list"), ("show", "x"), ("journal", "x")])
def test_looking_makes_no_store(amends: Amends, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = amends(*arguments)
    assert (ended.code, ended.out) == (5, "")
    assert f"there is no store at {tmp_path}/.amends/amends.db yet" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("list", "--store"), ("show", "x", "--store"), ("dead", "list", "--broker")])
def test_a_corrupt_file_has_its_own_exit_code(amends: Amends, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "damaged.db").write_bytes(b"no database" * 1000)
    scheme = "embedded" if arguments[-1] == "--broker" else "sqlite"
    ended = amends(*arguments, f"{scheme}:damaged.db")
    assert (ended.code, ended.out) == (6, "")
    assert f"{tmp_path}/damaged.db is damaged or no amends database" in ended.err
    assert "Traceback" not in ended.err


def test_dead_letters_are_listed_and_shown(amends: Amends, tmp_path: Path) -> None:
    url = f"embedded:{tmp_path}/dead.db"
    asyncio.run(_bury(url))
    (letter,) = amends("dead", "list", "--broker", url, "--json").json["dead_letters"]
    assert (letter["reason"], letter["detail"], letter["saga_id"]) == ("no-such-saga", "nobody is there", "order-1")
    number = str(letter["id"])
    shown = amends("dead", "show", number, "--broker", url, "--json").json
    assert (shown["data"], shown["attributes"]["type"]) == ({"by": "ada"}, "approve.v1")
    text = amends("dead", "show", number, "--broker", url).out
    assert text.startswith(f"dead letter {number}: no-such-saga\n  nobody is there\n")
    listed = amends("dead", "list", "--broker", url).out
    assert "approve.v1" in listed
    missing = amends("dead", "show", "999", "--broker", url)
    assert (missing.code, "there is no dead letter 999" in missing.err) == (4, True)


async def _bury(url: str) -> None:
    broker = await connect_broker(url)
    consumer = await broker.consume_shards(lambda shards: None)
    envelope = Envelope(
        id="m1", kind=Kind.SIGNAL, type="approve.v1", source="/test", subject="order-1",
        time=datetime.fromisoformat("2026-01-01T00:00:00Z"), data=b'{"by":"ada"}',
    )  # fmt: skip
    await broker.publish([Outgoing(slot_address(slot_of("order-1")), envelope)])
    (delivery,) = await consumer.receive()
    await consumer.dead_letter(delivery, "no-such-saga", "nobody is there")
    await consumer.close()
    await broker.close()


def test_no_dead_letters_are_told_so(look: Amends) -> None:
    assert look("dead", "list").out == "no dead letters\n"


def test_graph_draws_in_three_formats(amends: Amends) -> None:
    target = f"{SHOP}:PlaceOrder"
    assert amends("graph", target).out.startswith("flowchart TD\n")
    assert amends("graph", target, "--format", "dot").out.startswith('digraph "place-order.v1" {\n')
    for arguments in (("--format", "json"), ("--json",)):
        assert [step["name"] for step in amends("graph", target, *arguments).json["steps"]] == [
            "reserve", "approve", "charge", "ship"
        ]  # fmt: skip
    wrong = amends("graph", target, "--format", "png")
    assert (wrong.code, "--format" in wrong.err) == (2, True)


LINTED = """
from amends.coordinator import Saga, WaitFor, step
from amends.contracts import Signal

class Go(Signal): ...

class Doubtful(Saga):
    @step
    def wait(self) -> WaitFor[Go]:
        return WaitFor(Go)

class Wrong(Doubtful):
    @Doubtful.wait.when
    def wanted(self) -> bool:
        return self.missing
"""


def test_lint_exits_with_1_on_errors_and_with_0_on_warnings(amends: Amends, tmp_path: Path) -> None:
    (tmp_path / "linted.py").write_text(LINTED)
    doubtful = amends("lint", "linted:Doubtful")
    assert (doubtful.code, doubtful.err) == (0, "")
    assert doubtful.out.endswith("1 saga, 0 errors, 1 warning\n")
    wrong = amends("lint", "linted")
    assert wrong.code == 1
    assert "error: wrong.v1 wait: wanted reads self.missing, which Wrong does not have\n    Declare" in wrong.out
    assert wrong.out.endswith("2 sagas, 1 error, 2 warnings\n")
    document = amends("lint", "linted:Wrong", "--json").json
    assert document["sagas"] == ["wrong.v1"]
    assert {finding["severity"] for finding in document["findings"]} == {"error", "warning"}


def test_config_tells_values_and_where_they_come_from(amends: Amends, tmp_path: Path) -> None:
    (tmp_path / "amends.toml").write_text('store = "redis://:secret@host"')
    document = amends("config", "--json", "--log", "json").json["settings"]
    assert document["log"] == {"value": "json", "source": "--log"}
    assert document["store"] == {"value": "redis://:***@host", "source": str(tmp_path / "amends.toml")}
    assert document["timeout"] == {"value": 30.0, "source": "default"}
    assert document["retention"] == {"value": "30d", "source": "default"}
    assert amends("config").out.splitlines()[0].split() == ["setting", "value", "from"]


def test_settings_that_are_wrong_stop_any_command(amends: Amends, tmp_path: Path) -> None:
    (tmp_path / "amends.toml").write_text('brokr = "memory:"')
    ended = amends("list")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"amends: {tmp_path}/amends.toml: there is no setting 'brokr'. Did you mean broker?\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("lost",), "No such command 'lost'"),
        (("list", "--lost"), "No such option: --lost"),
        (("show",), "Missing argument 'ID'"),
        (("list", "--limit", "0"), "--limit"),
        (("list", "--phase", "lost"), "--phase"),
        (("cancel", "x"), "Missing option '--reason'"),
        (("resolve", "x", "y", "--reason", "z"), "Missing option '--forward'"),
        (("list", "--store", "redis://host/shop"), "no database number"),
        (("list", "--store", "lost"), "is no store URL"),
        (("dead", "list", "--broker", "nats://host"), "nats: is no kind of broker"),
    ],
)
def test_wrong_arguments_are_told_in_a_line_or_two(amends: Amends, arguments: tuple[str, ...], problem: str) -> None:
    ended = amends(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert problem in ended.err
    assert ended.err.startswith("amends: ")
    assert ended.err.count("\n") <= 2


def test_help_names_all_commands_and_exit_codes(amends: Amends) -> None:
    shown = amends("--help")
    assert shown.code == 0
    for word in ("run", "start", "journal", "resolve", "config", "    5    nobody answered"):
        assert word in shown.out
    bare = amends()
    assert (bare.code, bare.out) == (2, "")
    assert "Usage: amends" in bare.err


def test_debug_shows_the_trace_and_nothing_else_does(look: Amends) -> None:
    assert "Traceback" not in look("show", "nobody").err
    traced = look("show", "nobody", "--debug")
    assert traced.code == 4
    assert "Traceback" in traced.err
    assert traced.err.endswith("amends: there is no saga 'nobody'\n")


def test_the_library_does_not_import_what_only_the_command_needs() -> None:
    check = "import sys, amends.coordinator; sys.exit(bool({'typer', 'amends.coordinator.cli'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
