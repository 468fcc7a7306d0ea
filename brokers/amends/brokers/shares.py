"""Sharing out the shards among those who consume them."""

from collections.abc import Mapping, Sequence


def share_out(shards: int, consumers: Sequence[int], holders: Mapping[int, int]) -> dict[int, frozenset[int]]:
    """Who should hold which of `shards` shards, given who holds them now (shard -> consumer).

    Everyone gets the same number, give or take one, and keeps as much as possible of what is there: only surplus moves.
    The answer depends on nothing but the arguments, and stays the same while the consumers carry it out one by one.
    """
    if not consumers:
        return {}
    held: dict[int, list[int]] = {consumer: [] for consumer in consumers}
    for shard in range(shards):
        if (holder := holders.get(shard)) in held:
            held[holder].append(shard)
    least, extra = divmod(shards, len(consumers))
    # those who hold most get the odd ones, so that nothing moves for their sake
    ranked = sorted(held, key=lambda consumer: (-len(held[consumer]), consumer))
    quota = {consumer: least + (rank < extra) for rank, consumer in enumerate(ranked)}
    kept = {consumer: held[consumer][: quota[consumer]] for consumer in ranked}
    free = iter(sorted(set(range(shards)).difference(*kept.values())))
    for consumer in ranked:
        while len(kept[consumer]) < quota[consumer]:
            kept[consumer].append(next(free))
    return {consumer: frozenset(mine) for consumer, mine in kept.items()}
