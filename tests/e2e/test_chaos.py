"""The orders on real brokers and stores while everything is killed, paused and restarted: `make chaos`, in short."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chaos.customers import Source
from tests.chaos.ground import ground
from tests.chaos.plan import ESSENTIAL, Kind, plan
from tests.chaos.run import run
from tests.support.servers import ServiceMissing
from tests.support.services import do_without

pytestmark = pytest.mark.slow

ORDERS = 240
LEASE_S = 4.0


@pytest.mark.parametrize("on", ["rabbitmq", "kafka"])
async def test_every_order_ends_as_it_must_whatever_is_killed_paused_and_restarted(on: str, tmp_path: Path) -> None:
    told: list[str] = []
    try:
        with ground(on, LEASE_S, tmp_path) as here:
            report = await run(here, tmp_path, Source(None, ORDERS, 7), 7, ESSENTIAL, len(ESSENTIAL), told.append)
    except ServiceMissing as missing:
        do_without(on, missing)
    assert report.findings == (), "\n".join([*told, *report.findings])
    assert set(report.done) == set(ESSENTIAL)
    assert report.endings.total() == ORDERS


def test_a_plan_is_the_same_for_the_same_seed_and_has_each_kind_once_before_any_twice() -> None:
    def planned(seed: int) -> list[object]:
        return list(plan(seed, 1000, 2 * len(Kind), list(Kind), ["c-1", "c-2"], ["p-1", "p-2"]))

    assert planned(1) == planned(1) != planned(2)
    kinds = [disturbance.kind for disturbance in plan(1, 1000, 2 * len(Kind), list(Kind), ["c"], ["p"])]
    assert set(kinds[: len(Kind)]) == set(kinds[len(Kind) :]) == set(Kind)
