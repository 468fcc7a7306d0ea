"""Members that tell each other what they hold end with even shares, whatever the order of the words."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from amends.brokers.rabbitmq.roll import Greeting, Roll

SHARDS = 8


def settle(rolls: list[Roll], seed: int) -> None:
    """Let members act on what they know, and tell each other in any order, until nothing changes."""
    order = random.Random(seed)
    quiet = 0
    while quiet < 2:
        before = [roll.mine for roll in rolls]
        for speaker in order.sample(rolls, len(rolls)):
            speaker.mine = speaker.share()
            for listener in order.sample(rolls, len(rolls)):
                listener.hear(Greeting(speaker.me, speaker.mine))
        quiet = quiet + 1 if before == [roll.mine for roll in rolls] else 0


@given(ids=st.sets(st.integers(1, 1_000), min_size=1, max_size=10), seed=st.integers(0, 1_000))
def test_every_shard_has_one_holder_and_shares_are_even(ids: set[int], seed: int) -> None:
    rolls = [Roll(id, SHARDS) for id in ids]
    settle(rolls, seed)
    held = sorted(shard for roll in rolls for shard in roll.mine)
    assert held == list(range(SHARDS))
    sizes = {len(roll.mine) for roll in rolls}
    assert max(sizes) - min(sizes) <= 1


@given(ids=st.sets(st.integers(1, 1_000), min_size=2, max_size=10), seed=st.integers(0, 1_000), data=st.data())
def test_the_shards_of_one_who_is_gone_go_to_the_others_and_no_others_move(
    ids: set[int], seed: int, data: st.DataObject
) -> None:
    rolls = [Roll(id, SHARDS) for id in ids]
    settle(rolls, seed)
    gone = data.draw(st.sampled_from(rolls))
    rolls.remove(gone)
    before = [roll.mine for roll in rolls]
    for roll in rolls:
        assert roll.strike(gone.me)
    settle(rolls, seed)
    assert sorted(shard for roll in rolls for shard in roll.mine) == list(range(SHARDS))
    assert all(kept <= roll.mine for kept, roll in zip(before, rolls, strict=True))


def test_one_who_knows_nobody_holds_everything() -> None:
    assert Roll(5, SHARDS).share() == frozenset(range(SHARDS))


def test_of_two_who_hold_a_shard_the_one_with_the_lower_id_keeps_it() -> None:
    low, high = Roll(1, 2), Roll(2, 2)
    low.mine = high.mine = frozenset({0, 1})
    low.hear(Greeting(2, high.mine))
    high.hear(Greeting(1, low.mine))
    assert (low.share(), high.share()) == (frozenset({0}), frozenset({1}))


def test_only_what_was_not_known_is_news() -> None:
    roll = Roll(1, SHARDS)
    assert not roll.hear(Greeting(0))
    assert not roll.hear(Greeting(1, frozenset({3})))
    assert roll.hear(Greeting(2))
    assert not roll.hear(Greeting(2))
    assert roll.hear(Greeting(2, frozenset({3})))
    assert roll.hear(Greeting(2, leaves=True))
    assert not roll.hear(Greeting(2, leaves=True))
    assert roll.others == []
