"""How results are shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from importlib import metadata

import pytest
from tests.unit.coordinator.cli.conftest import Amends

from amends.brokers import BrokerUnavailable
from amends.brokers.sqlite_file import FileCorrupt, FileUnavailable
from amends.contracts import AmendsError, TerminalError, UsageError
from amends.coordinator.cli.errors import EXIT_CODES, Exit, Failed, complain, exit_code
from amends.coordinator.cli.output import Output, moment, plain
from amends.coordinator.client import NoAnswer, Refused
from amends.coordinator.outcome import NotCompleted, StillGoing, UnknownSagaId
from amends.coordinator.store import StoreCorrupt, StoreUnavailable


def test_a_table_is_not_cut_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=False).table(("id", "detail"), [("a" * 300, "b" * 300), ("x", "y")])
    header, long, short = capsys.readouterr().out.splitlines()
    assert header == f"id{' ' * 300}detail"
    assert long == f"{'a' * 300}  {'b' * 300}"
    assert short == f"x{' ' * 301}y"


def test_columns_that_say_nothing_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=False).table(("id", "next timer"), [("a", None), ("b", "")])
    assert capsys.readouterr().out == "id\na\nb\n"


def test_data_cannot_steer_the_terminal_nor_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(json=False)
    out.table(("id",), [("[bold]a[/bold]\x1b[31m\nb",)])
    out.line("c\x07 :smile: [red]")
    assert capsys.readouterr().out == "id\n[bold]a[/bold]\\x1b[31m\\nb\nc\\x07 :smile: [red]\n"
    complain("d\x1b[2J\ne")
    assert capsys.readouterr().err == "amends: d\\x1b[2J\ne\n"


def test_json_is_one_line_with_times_as_rfc_3339(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)
    Output(json=True).result({"at": at, "text": "ä\n"}, lambda out: out.line("not shown"))
    assert capsys.readouterr().out == '{"at":"2026-01-02T03:04:05.600000Z","text":"ä\\n"}\n'


def test_people_get_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=False).result({"x": 1}, lambda out: out.line("shown"))
    assert capsys.readouterr().out == "shown\n"


def test_times_are_shown_in_utc() -> None:
    assert moment(datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))) == "2025-12-31 23:00:00Z"


def test_text_that_can_be_printed_stays_as_it_is() -> None:
    assert plain("Größe: 3 — ok 注文") == "Größe: 3 — ok 注文"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failed("x"), 1),
        (NotCompleted("a", "compensated", None), 1),
        (TerminalError("x"), 1),
        (UsageError("x"), 2),
        (Refused("a", "id-in-use", "x"), 3),
        (Refused("a", "no-such-saga", "x"), 4),
        (UnknownSagaId("a"), 4),
        (NoAnswer("a", 1), 5),
        (StillGoing("a", "running", 1), 5),
        (BrokerUnavailable("x"), 5),
        (StoreUnavailable("x"), 5),
        (FileUnavailable("x"), 5),
        (Refused("a", "corrupt", "x"), 6),
        (StoreCorrupt("x"), 6),
        (FileCorrupt("x"), 6),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: AmendsError, code: int) -> None:
    assert exit_code(error) == code


def test_every_exit_code_is_explained() -> None:
    assert set(EXIT_CODES) == set(Exit)
    assert json.dumps([int(code) for code in Exit]) == "[0, 1, 2, 3, 4, 5, 6, 130]"


def test_the_version_is_that_of_the_distribution(amends: Amends) -> None:
    ended = amends("--version")
    assert (ended.code, ended.out) == (0, f"amends {metadata.version('amends')}\n")
