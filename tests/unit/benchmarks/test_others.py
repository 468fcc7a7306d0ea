"""What others do with the same orders: their load, their servers, and whether what is missing is told."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import SERVERS, main, shares
from benchmarks.others import environments
from benchmarks.others.contest import OTHERS
from benchmarks.others.postgres import PrivatePostgres
from benchmarks.others.programs.driver import is_refused, saturate, trickle
from benchmarks.servers.contest import AMENDS
from benchmarks.servers.results import Result
from tests.support.servers import ServiceMissing

TINY = ("--sagas", "20", "--rounds", "1", "--seconds", "0.5", "--json")


async def test_driver_keeps_so_many_orders_going_and_no_more() -> None:
    going = most = 0

    async def order(number: int) -> None:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await asyncio.sleep(0)
        going -= 1

    told = await saturate(order, 0.05, 7)
    assert most == 7
    assert told["all"] > 7
    assert 0 < told["rate"] * 0.75 * 0.05 <= told["all"]


async def test_driver_tells_how_long_each_order_took() -> None:
    async def order(number: int) -> None:
        await asyncio.sleep(0)

    assert len(await trickle(order, 0.05, 200)) == 10


def test_every_tenth_order_is_refused() -> None:
    assert [number for number in range(40) if is_refused(number)] == [9, 19, 29, 39]


def test_shares_of_others_are_those_of_amends() -> None:
    results = {AMENDS: Result(rate=10), "Celery": Result(rate=5)}
    assert shares(results) == {"Celery": 0.5}


def test_what_is_not_installed_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for find in (lambda: environments.python_of("dbos"), environments.restate_server):
        with pytest.raises(ServiceMissing, match="run python -m benchmarks others --install"):
            find()


def test_what_was_left_out_is_told_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(SERVERS, "others", {"Celery": OTHERS["Celery"]})
    assert main(["others", *TINY]) == 1
    captured = capsys.readouterr()
    assert "LEFT OUT: Celery: celery is not installed" in captured.err
    assert json.loads(captured.out)["servers"] == {}


@pytest.mark.slow
def test_postgres_takes_its_settings_and_comes_back_with_its_data() -> None:
    try:
        with PrivatePostgres({"synchronous_commit": "off"}) as server:
            assert server.url.endswith("/orders")
            server.restart()
            assert server.is_running
    except ServiceMissing as error:
        _skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OTHERS))
def test_other_does_its_orders_where_it_is_installed(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SERVERS, "others", {name: OTHERS[name]})
    main(["others", *TINY])
    told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    if missing := told["left_out"].get(name):
        _skip(missing)
    result = told["servers"][name]
    assert result["rate"] >= 0
    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert sum(result["cpu_s"].values()) > 0


def _skip(missing: str) -> None:
    # no developer has to have what others are made of
    assert os.environ.get("AMENDS_REQUIRE_OTHERS") != "1", missing
    pytest.skip(missing)
