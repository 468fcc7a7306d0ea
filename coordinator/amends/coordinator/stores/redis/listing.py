"""How the Redis store lists and counts sagas: by the indexes of all slots, never by scanning keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from amends.brokers.redis_link import RedisLink
from amends.coordinator.store import SagaQuery, SagaSummary
from amends.coordinator.stores.facets import matching, phase_and_flags
from amends.coordinator.stores.redis import scripts
from amends.coordinator.stores.redis.keys import Head, Keys, Place, facets_text, read_start
from amends.coordinator.stores.redis.merging import SETS, merged
from amends.coordinator.stores.times import moment

_LISTS: Final = 64
_ALL: Final = -1


class Listing:
    """Finds and counts. Raises `ValueError` for a saga that cannot be read."""

    def __init__(self, link: RedisLink, keys: Keys) -> None:
        self._link, self._keys = link, keys

    async def find(self, query: SagaQuery) -> list[SagaSummary]:
        found = await (self._prefixed(query) if query.id_prefix else self._first(query))
        found.sort(key=lambda line: (line.started_at, line.id), reverse=query.order == "newest")
        return found[: query.limit]

    async def count(self, query: SagaQuery) -> int:
        if query.id_prefix:
            return len(await self._prefixed(query))
        return sum(count for _, _, count in await self._kinds(query))

    async def _kinds(self, query: SagaQuery) -> list[tuple[Place, str, int]]:
        """The kinds that match: where, name and facets, how many."""
        groups = list(self._link.together(self._keys.places, lambda place: place.prefix, SETS))
        calls = [scripts.KINDS.call([place.kinds for place in group], ()) for group in groups]
        wanted = {facets_text(facets) for facets in matching(query)}
        found: list[tuple[Place, str, int]] = []
        for group, answer in zip(groups, await self._link.run(calls), strict=True):
            for number, flat in answer:
                for name, count in zip(flat[::2], flat[1::2], strict=True):
                    kind = name.decode()
                    saga, _, facets = kind.rpartition(":")
                    if facets in wanted and query.saga in (None, saga):
                        found.append((group[number - 1], kind, int(count)))
        return found

    async def _first(self, query: SagaQuery) -> list[SagaSummary]:
        kinds = await self._kinds(query)

        async def fetch(numbers: Sequence[int], count: int) -> dict[int, list[tuple[str, Place]]]:
            beginnings = [(kinds[number][0], f"{kinds[number][1]}:") for number in numbers]
            found = await self._browse(beginnings, lambda place: place.index, query.order, count)
            return {
                numbers[at]: [(entry.removeprefix(beginnings[at][1]), beginnings[at][0]) for entry in entries]
                for at, entries in found.items()
            }

        # what is left of an entry is the time of the start and the id
        entries = await merged(len(kinds), fetch, lambda entry: entry[0], query.limit, newest=query.order == "newest")
        return await self._summaries([place.saga(entry.partition(":")[2]) for entry, place in entries])

    async def _prefixed(self, query: SagaQuery) -> list[SagaSummary]:
        beginnings = [(place, query.id_prefix or "") for place in self._keys.places]
        found = await self._browse(beginnings, lambda place: place.ids, "oldest", _ALL)
        lists = [beginnings[at][0].saga(saga_id) for at, ids in found.items() for saga_id in ids]
        wanted = (query.saga, query.phase, query.stuck, query.paused, query.waived)
        return [line for line in await self._summaries(lists) if _fits(line, wanted)]

    async def _browse(
        self, beginnings: Sequence[tuple[Place, str]], key: Callable[[Place], str], order: str, count: int
    ) -> dict[int, list[str]]:
        groups = list(self._link.together(range(len(beginnings)), lambda number: beginnings[number][0].prefix, SETS))
        calls = [
            scripts.BROWSE.call(
                [key(beginnings[number][0]) for number in group],
                (order, count, *(beginnings[number][1] for number in group)),
            )
            for group in groups
        ]
        return {
            group[position - 1]: [entry.decode() for entry in entries]
            for group, answer in zip(groups, await self._link.run(calls), strict=True)
            for position, entries in answer
        }

    async def _summaries(self, lists: Sequence[str]) -> list[SagaSummary]:
        groups = list(self._link.together(list(dict.fromkeys(lists)), _prefix, _LISTS))
        answers = await self._link.run([scripts.LOAD.call(group, (0, 1)) for group in groups])
        return [
            _summary(key[len(_prefix(key)) + len("saga:") :], elements)
            for group, answer in zip(groups, answers, strict=True)
            for key, elements in zip(group, answer, strict=True)
            # what was purged in the meantime has no head any more
            if elements and elements[0]
        ]


def _fits(line: SagaSummary, wanted: tuple[object, ...]) -> bool:
    has = (line.saga, line.phase, line.stuck, line.paused, line.waived)
    return all(want is None or want == is_ for want, is_ in zip(wanted, has, strict=True))


def _prefix(key: str) -> str:
    return key[: key.index("}") + 2]


def _summary(saga_id: str, elements: list[bytes]) -> SagaSummary:
    head, _ = Head.read(elements[0])
    saga, start = read_start(elements[1])
    phase, stuck, paused, waived = phase_and_flags(head.facets)
    return SagaSummary(
        id=saga_id,
        saga=saga,
        definition_version=head.definition_version,
        phase=phase,
        stuck=stuck,
        paused=paused,
        waived=waived,
        version=head.version,
        started_at=start.started_at,
        updated_at=moment(head.updated_at),
        wake_at=moment(head.wake_at),
    )
