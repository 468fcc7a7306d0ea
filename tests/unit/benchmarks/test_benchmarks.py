"""Every benchmark runs, with tiny numbers, and tells its ratios. How fast it is, is nothing that a test can tell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from benchmarks.__main__ import LATENCY, THROUGHPUT, main
from benchmarks.measures import Measure, latency, middle
from benchmarks.script import hops


def result(capsys: pytest.CaptureFixture[str]) -> Any:
    """The line of JSON behind whatever was logged."""
    return json.loads(capsys.readouterr().out.splitlines()[-1])


TINY = ("--sagas", "20", "--rounds", "1", "--trickled", "2")


def test_core_tells_transitions_per_second(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["core", "--json", *TINY]) == 0
    measures = result(capsys)["measures"]
    assert list(measures) == list(THROUGHPUT["core"])
    assert all(one["rate"] > 0 and one["cpu_s"] > 0 for one in measures.values())


def test_embedded_tells_every_way_as_a_share_of_the_bare_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embedded", "--json", *TINY]) == 0
    told = result(capsys)
    assert list(told["measures"]) == list(THROUGHPUT["embedded"])
    assert list(told["ratios"]) == list(THROUGHPUT["embedded"])
    assert told["ratios"]["bare loop, all rows"] == 1
    for one in told["measures"].values():
        assert one["rate"] > 0
        assert one["cpu_s"] > 0
        # the first few may fit into pages that are there already
        assert one["bytes"] >= 0


def test_latency_tells_the_middle_and_the_slowest_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", *TINY]) == 0
    out = capsys.readouterr().out
    assert "p50 ms" in out
    assert "ratio" in out
    for name in LATENCY:
        assert name in out


def test_unknown_benchmark_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["warp"])
    assert "there is no benchmark warp; there are core, embedded, latency" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "transitions"), [(0, 4), (9, 6)])
def test_bare_loop_writes_what_a_saga_makes_of_each_message(number: int, transitions: int) -> None:
    life = hops(number)
    assert len(life) == transitions
    assert all(hop.arrived and hop.snapshot and hop.record for hop in life)
    assert [hop.command is None for hop in life] == [False] * (transitions - 1) + [True]
    assert [hop.inbox_row is None for hop in life] == [hop.command is None for hop in life]


def test_middle_is_the_median_of_each_figure_and_leaves_out_what_was_not_measured() -> None:
    rounds = [Measure(rate=rate, cpu_s=1 / rate) for rate in (4.0, 1.0, 2.0)]
    assert middle(rounds) == Measure(rate=2.0, cpu_s=0.5)


def test_latency_of_a_hundred_is_the_middle_and_the_ninety_ninth() -> None:
    told = latency([number / 1000 for number in range(1, 101)])
    assert told.p50_ms == pytest.approx(50.5)
    assert told.p99_ms == pytest.approx(99)
