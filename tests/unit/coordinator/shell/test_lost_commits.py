"""A store that loses commits under a running coordinator: what the processor makes of it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from structlog.testing import capture_logs
from tests.support.rig import Approve, Order, Rig, Shop, take

from amends.contracts import JSON, Command, Compensation, Envelope, Kind
from amends.contracts.payloads import Control
from amends.coordinator import Saga, WaitFor, step
from amends.coordinator.core.journal import What
from amends.coordinator.core.snapshot import Phase
from amends.coordinator.testing import World
from amends.participants import Context, Participant


class Hold(Command[None], service="hall"):
    seat: str


class Release(Compensation[Hold]):
    pass


class Visit(Saga):
    """Hold a seat, and wait for a word."""

    seat: str

    @step
    def hold(self) -> Hold:
        return Hold(seat=self.seat)

    @hold.compensation
    def release(self) -> Release:
        return Release()

    @step(timeout=timedelta(days=9))
    def word(self) -> WaitFor[Approve]:
        return WaitFor(Approve)


def hall(seen: Counter[str]) -> Participant:
    participant = Participant("hall")

    @participant.action
    def hold(command: Hold) -> None:
        seen[f"held {command.seat}"] += 1

    @participant.compensation
    def release(undo: Release, ctx: Context[Hold]) -> None:
        assert ctx.undoes is not None
        seen[f"released {ctx.undoes.command.seat}"] += 1

    return participant


async def test_a_hot_saga_whose_store_was_put_back_asks_again_and_goes_back_when_it_had_gone_back() -> None:
    seen: Counter[str] = Counter()
    async with World(Visit, hall(seen)) as world:
        for seat in ("a", "b"):
            await world.start(Visit(seat=seat), id=seat)
        await world.settle()
        backup = world.store.backup()
        await world.client.cancel("a", reason="no more")
        await world.settle()
        assert (await world.client.snapshot("a")).phase is Phase.COMPENSATED
        world.store.restore(backup, epoch="restored")
        with capture_logs() as logs:
            for seat in ("a", "b"):
                await world.client.signal(seat, Approve(by="ada"))
            await world.settle()
        assert (await world.client.snapshot("a")).phase is Phase.COMPENSATED
        assert (await world.client.snapshot("b")).phase is Phase.COMPLETED
        assert seen == {"held a": 1, "released a": 1, "held b": 1}
        for seat in ("a", "b"):
            record = next(r for r in await world.client.journal(seat) if r.entries[0].what is What.ROLLED_BACK)
            assert "restarted, failed over or restored" in record.entries[0].detail
            assert (await world.client.snapshot(seat)).epoch == "restored"
        assert [log["saga_id"] for log in logs if log["event"].startswith("a saga may have lost commits")] == ["a", "b"]


async def test_the_other_life_of_the_store_is_told_once_and_everything_hot_is_read_anew() -> None:
    seen: Counter[str] = Counter()
    async with World(Visit, hall(seen)) as world:
        world.store.restore(world.store.backup(), epoch="first")
        for seat in ("a", "b", "c"):
            await world.start(Visit(seat=seat), id=seat)
        await world.settle()
        world.store.restore(world.store.backup(), epoch="second")
        with capture_logs() as logs:
            await world.start(Visit(seat="d"), id="d")  # a cold one is enough to find out
            for seat in ("a", "b", "c"):
                await world.client.signal(seat, Approve(by="ada"))
            await world.settle()
        told = [log for log in logs if log["event"].startswith("the store was restarted")]
        assert [log["epoch"] for log in told] == ["second"]
        for seat in ("a", "b", "c"):
            snapshot = await world.client.snapshot(seat)
            assert (snapshot.phase, snapshot.epoch, snapshot.suspect is not None) == (Phase.COMPLETED, "second", True)
        fresh = await world.client.snapshot("d")
        assert (fresh.epoch, fresh.suspect) == ("second", None)


async def test_a_store_that_cannot_tell_is_found_out_by_the_first_answer_that_knows_more() -> None:
    seen: Counter[str] = Counter()
    async with World(Visit, hall(seen)) as world:
        await world.start(Visit(seat="a"), id="a")
        await world.settle()
        backup = world.store.backup()
        await world.client.cancel("a", reason="no more")
        for _ in range(20):  # the undo is on its way
            if (await world.client.snapshot("a")).phase is Phase.COMPENSATING:
                break
        world.store.restore(backup)
        with capture_logs() as logs:
            await world.settle()
        assert [log["saga_id"] for log in logs if log["log_level"] == "warning"] == ["a"]
        assert (await world.client.snapshot("a")).phase is Phase.COMPENSATED
        assert seen == {"held a": 1, "released a": 1}
        told = [entry.what for record in await world.client.journal("a") for entry in record.entries]
        assert What.ROLLED_BACK in told


async def test_the_message_that_showed_it_is_handled_after_the_questions_and_acknowledged_once() -> None:
    rig = await Rig(shop=Shop()).open()
    await rig.start(Order(), "order-1")
    await rig.coordinate()
    await rig.listen()
    rig.store.restore(rig.store.backup(), epoch="second")  # type: ignore[attr-defined]
    rig = await rig.crash()
    await rig.control("order-1", Control(action="cancel", reason="no more"))
    await rig.run()
    snapshot = await rig.snapshot("order-1")
    assert snapshot.phase is Phase.COMPENSATED
    causes = [record.cause.split()[0] for record in await rig.store.journal("order-1")]
    assert causes[:3] == ["start", "RolledBack", "Cancel"]
    assert sorted(notice.what for _, notice in rig.notices) == ["accepted", "accepted", "ended"]
    assert await rig.medium.dead_letters() == []
    # and a word for a saga that has nothing to lose any more changes nothing
    await rig.send("order-1", Kind.SIGNAL, Approve.__tag__, JSON.encode(Approve(by="ada")), "late")
    await rig.run()
    assert (await rig.snapshot("order-1")).version == snapshot.version


async def test_no_two_messages_have_one_id_also_when_commits_are_lost_and_come_again() -> None:
    rig = await Rig().open()
    nothing = rig.store.backup()  # type: ignore[attr-defined]
    sent: list[Envelope] = []
    for _ in range(2):
        rig.store.restore(nothing)  # type: ignore[attr-defined]
        rig = await rig.crash()
        await rig.start(Order(), "o-1", f"start at {len(sent)}")
        await rig.coordinate()
        for reason in ("one", "another"):
            await rig.control("o-1", Control(action="retry", reason=reason), f"retry for {reason} at {len(sent)}")
        await rig.coordinate()
        deliveries = [*take(rig.service), *take(rig.client)]
        sent += [delivery.envelope for delivery in deliveries if delivery.envelope is not None]
        rig.clock.advance(1)
    kinds = Counter(envelope.kind for envelope in sent)
    assert kinds[Kind.COMMAND] >= 2
    assert kinds[Kind.NOTICE] >= 6
    told = {envelope.id: envelope for envelope in sent}
    assert [envelope for envelope in sent if told[envelope.id] != envelope] == []


# a start that is lost and comes again


async def test_a_start_that_is_lost_and_sent_again_finds_what_was_done_and_does_not_do_it_twice() -> None:
    seen: Counter[str] = Counter()
    async with World(Visit, hall(seen)) as world:
        nothing = world.store.backup()
        await world.start(Visit(seat="a"), id="a")
        await world.settle()
        lost = await world.client.snapshot("a")
        world.store.restore(nothing, epoch="restored")
        await world.start(Visit(seat="a"), id="a")
        await world.settle()
        assert (await world.client.snapshot("a")).incarnation == lost.incarnation
        await world.client.signal("a", Approve(by="ada"))
        await world.settle()
        assert (await world.client.snapshot("a")).phase is Phase.COMPLETED
        assert seen == {"held a": 1}


async def test_a_lost_saga_that_had_gone_back_goes_back_when_its_start_is_sent_again() -> None:
    seen: Counter[str] = Counter()
    async with World(Visit, hall(seen)) as world:
        nothing = world.store.backup()
        await world.start(Visit(seat="a"), id="a")
        await world.settle()
        await world.client.cancel("a", reason="no more")
        await world.settle()
        world.store.restore(nothing, epoch="restored")
        await world.start(Visit(seat="a"), id="a")
        await world.settle()
        assert (await world.client.snapshot("a")).phase is Phase.COMPENSATED
        assert seen == {"held a": 1, "released a": 1}


async def test_the_same_start_with_another_input_after_a_loss_is_another_saga() -> None:
    seen: Counter[str] = Counter()
    async with World(Visit, hall(seen)) as world:
        nothing = world.store.backup()
        await world.start(Visit(seat="a"), id="x")
        await world.settle()
        world.store.restore(nothing, epoch="restored")
        await world.start(Visit(seat="b"), id="x")
        await world.settle()
        assert seen == {"held a": 1, "held b": 1}
