"""How long what is over is kept: how it is written, and what goes together."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from amends.brokers.retention import FOREVER, Retention, read_span, span_text
from amends.brokers.settings import find_settings
from amends.contracts import UsageError

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("30d", 30 * DAY),
        ("12h", DAY / 2),
        (" 1W ", 7 * DAY),
        ("1.5m", timedelta(seconds=90)),
        ("90s", timedelta(seconds=90)),
        ("90", timedelta(seconds=90)),
        (90, timedelta(seconds=90)),
        (0.5, timedelta(milliseconds=500)),
        ("forever", None),
        ("Never", None),
        ("0", None),
        (0, None),
    ],
)
def test_lengths_of_time_are_written_with_a_unit_in_seconds_or_as_forever(
    value: object, span: timedelta | None
) -> None:
    assert read_span(value, "retention") == span


@pytest.mark.parametrize("value", ["", "d", "a month", "-1d", "0d", "nan", "inf", True, "9999999999d"])
def test_what_is_no_length_of_time_is_refused_by_name(value: object) -> None:
    with pytest.raises(UsageError, match="retention"):
        read_span(value, "retention")


@pytest.mark.parametrize("text", ["30d", "1w", "36h", "90s", "0.5s", "forever"])
def test_a_length_of_time_is_shown_as_it_is_written(text: str) -> None:
    assert span_text(read_span(text, "x")) == text


def test_a_ledger_that_old_starts_outlive_is_refused_with_both_values_and_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"ledger_retention=10d .*message_age=2w.*Raise ledger_retention"):
        Retention(ledger=10 * DAY)
    assert Retention(ledger=14 * DAY).ledger == 14 * DAY
    assert Retention(sagas=None, ledger=DAY).ledger == DAY, "what is never purged needs no ledger"


def test_an_inbox_that_old_messages_outlive_is_refused_with_both_values_and_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"inbox_retention=2w .*message_age=2w.*Raise inbox_retention"):
        Retention(inbox=14 * DAY)
    assert FOREVER.inbox is None


def test_settings_say_how_long_things_are_kept(tmp_path: Path) -> None:
    (tmp_path / "amends.toml").write_text('retention = "7d"\nledger_retention = 86400\nmessage_age = "12h"')
    found = find_settings(environ={"AMENDS_INBOX_RETENTION": "forever"}, directory=tmp_path)
    assert found.settings.kept == Retention(sagas=7 * DAY, ledger=DAY, inbox=None, messages=DAY / 2)
    assert found.sources["inbox_retention"] == "AMENDS_INBOX_RETENTION"
    assert find_settings(environ={}, directory=tmp_path / "..").settings.kept == Retention()


def test_a_setting_that_is_no_length_of_time_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"AMENDS_RETENTION: the retention: 'soon' is no length of time\. Write 30d"):
        find_settings(environ={"AMENDS_RETENTION": "soon"}, directory=tmp_path)
    with pytest.raises(UsageError, match="message_age=forever"):
        _ = find_settings(environ={"AMENDS_MESSAGE_AGE": "forever"}, directory=tmp_path).settings.kept
