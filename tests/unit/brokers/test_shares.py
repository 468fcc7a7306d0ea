"""Sharing out shards: even, complete, and with as little moving as possible."""

from hypothesis import given
from hypothesis import strategies as st

from amends.brokers.shares import share_out

consumers = st.lists(st.integers(1, 40), min_size=1, max_size=12, unique=True)
holders = st.dictionaries(st.integers(0, 31), st.integers(1, 40))


def held_by(shares: dict[int, frozenset[int]]) -> dict[int, int]:
    return {shard: consumer for consumer, share in shares.items() for shard in share}


def test_nobody_gets_anything_when_nobody_is_there() -> None:
    assert share_out(8, [], {0: 1}) == {}


def test_one_that_comes_gets_only_the_surplus_of_the_others() -> None:
    before = {shard: 1 + shard % 2 for shard in range(8)}
    shares = share_out(8, [1, 2, 3], before)
    assert shares == {1: frozenset({0, 2, 4}), 2: frozenset({1, 3, 5}), 3: frozenset({6, 7})}


@given(st.integers(1, 32), consumers, holders)
def test_every_shard_has_one_consumer_and_shares_differ_by_one_at_most(
    shards: int, consumers: list[int], holders: dict[int, int]
) -> None:
    shares = share_out(shards, consumers, holders)
    assert sorted(shard for share in shares.values() for shard in share) == list(range(shards))
    sizes = [len(share) for share in shares.values()]
    assert len(sizes) == len(consumers)
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 32), consumers, holders)
def test_what_is_shared_out_stays_where_it_is(shards: int, consumers: list[int], holders: dict[int, int]) -> None:
    shares = share_out(shards, consumers, holders)
    assert share_out(shards, consumers, held_by(shares)) == shares


@given(st.integers(1, 32), consumers, holders, st.randoms())
def test_consumers_that_follow_it_one_by_one_agree(
    shards: int, consumers: list[int], holders: dict[int, int], random: object
) -> None:
    """Each gives up its surplus, then takes what is free, at its own time; three rounds settle it for everyone."""
    state = {shard: holder for shard, holder in holders.items() if holder in consumers and shard < shards}
    for _ in range(3):
        order = list(consumers)
        random.shuffle(order)  # type: ignore[attr-defined]
        for consumer in order:
            mine = share_out(shards, consumers, state)[consumer]
            state = {shard: holder for shard, holder in state.items() if holder != consumer or shard in mine}
            state |= {shard: consumer for shard in mine if shard not in state}
    assert state == held_by(share_out(shards, consumers, state))
