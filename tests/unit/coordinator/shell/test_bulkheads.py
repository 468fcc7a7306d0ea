"""One message, or one saga, that cannot be dealt with stops nobody else."""

from __future__ import annotations

import msgspec
import pytest
from tests.support.rig import Order, Rig

from amends.brokers import MemoryBroker
from amends.contracts import JSON, Kind
from amends.contracts.payloads import Start
from amends.coordinator import CoordinatorConfig, Policy, StoreUnavailable
from amends.coordinator.coordinator import Engine
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.registry import Registry
from amends.coordinator.stores import MemoryStore


async def test_a_commit_that_cannot_be_written_takes_its_own_message_to_the_dead_letters_and_no_other() -> None:
    rig = await Rig().open()
    await rig.start(Order(), "o-1")
    data = JSON.encode(Start("order", msgspec.Raw(JSON.encode(Order()))))
    await rig.send("o-2", Kind.START, Start.__tag__, data, "start-o-2", correlation_id="\udcff")
    await rig.start(Order(), "o-3")
    await rig.run()
    for saga_id in ("o-1", "o-3"):
        assert (await rig.snapshot(saga_id)).phase is Phase.COMPLETED
    (letter,) = await rig.medium.dead_letters()
    assert (letter.reason, letter.envelope and letter.envelope.subject) == ("internal-error", "o-2")
    ((_, told),) = [notice for notice in rig.notices if notice[0] == "o-2"]
    assert (told.what, told.code) == ("refused", "internal-error")


async def test_a_coordinator_that_cannot_start_keeps_no_shards_from_the_others() -> None:
    def away(point: str) -> None:
        if point == "unpark:before":
            raise StoreUnavailable("the store is away")

    medium = MemoryBroker()
    engine = Engine(Registry([Order]), medium.join(), MemoryStore(fault=away), Policy(), CoordinatorConfig())
    with pytest.raises(StoreUnavailable):
        await engine.start()
    rig = await Rig(medium=medium).open()
    assert len(rig.engine.shards) == medium.shard_map.shards
