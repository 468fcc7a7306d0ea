"""Durations are a timedelta or seconds."""

from datetime import timedelta
from typing import Any

import pytest

from amends.contracts import UsageError, as_timedelta


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (timedelta(minutes=1), timedelta(minutes=1)),
        (90, timedelta(seconds=90)),
        (0.25, timedelta(milliseconds=250)),
        (0, timedelta()),
    ],
)
def test_numbers_are_seconds(given: Any, meant: timedelta) -> None:
    assert as_timedelta(given) == meant


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (True, "timeout=True is no duration. Give a timedelta or seconds"),
        ("1h", "timeout='1h' is no duration. Give a timedelta or seconds"),
        (None, "timeout=None is no duration. Give a timedelta or seconds"),
        (-1, "timeout=-1 is negative"),
        (timedelta(seconds=-1), "timeout=datetime.timedelta(days=-1, seconds=86399) is negative"),
        (float("nan"), "timeout=nan is no duration that can be waited"),
        (float("inf"), "timeout=inf is no duration that can be waited"),
        (1e300, "timeout=1e+300 is no duration that can be waited"),
    ],
)
def test_what_is_no_duration_is_refused(given: Any, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        as_timedelta(given, "timeout")
    assert str(caught.value) == says
