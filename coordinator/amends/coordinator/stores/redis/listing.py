"""How the Redis store lists and counts sagas: by the indexes of all slots, never by scanning keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from msgspec.structs import replace

from amends.brokers.redis_link import RedisLink
from amends.coordinator.store import SagaQuery, SagaSummary
from amends.coordinator.stores.facets import matching, phase_and_flags
from amends.coordinator.stores.filters import fits
from amends.coordinator.stores.redis import scripts
from amends.coordinator.stores.redis.keys import (
    Head,
    Keys,
    Place,
    facets_text,
    key_text,
    read_keys,
    read_start,
    started_text,
)
from amends.coordinator.stores.redis.merging import SETS, merged
from amends.coordinator.stores.times import moment

_LISTS: Final = 64
_ALL: Final = -1

Index: TypeAlias = Callable[[Place], str]


class Run:
    """A part of an index: the members that begin with a text, started in the time that a query asks for.

    Behind the text, a member holds the time of the start and the id.
    """

    def __init__(self, place: Place, beginning: str, query: SagaQuery) -> None:
        self.place, self.beginning = place, beginning
        after, before = query.started_after, query.started_before
        self.low = f"[{beginning}" if after is None else f"[{beginning}{started_text(after)}"
        # no text goes on with this byte, which is none of UTF-8's
        self.high: str | bytes = f"({beginning}".encode() + b"\xff"
        if before is not None:
            self.high = f"({beginning}{started_text(before)}"


class Listing:
    """Finds and counts. Raises `ValueError` for a saga that cannot be read."""

    def __init__(self, link: RedisLink, keys: Keys) -> None:
        self._link, self._keys = link, keys

    async def find(self, query: SagaQuery) -> list[SagaSummary]:
        found = await (self._narrow(query) if _is_narrow(query) else self._first(query))
        found.sort(key=lambda line: (line.started_at, line.id), reverse=query.order == "newest")
        return found[: query.limit]

    async def count(self, query: SagaQuery) -> int:
        if query.key is not None and query == _by_key_alone(query):
            return await self._tally(self._key_runs(query), _key_index)
        if _is_narrow(query):
            return len(await self._narrow(query))
        kinds = await self._kinds(query)
        if query.started_after is None and query.started_before is None:
            return sum(count for _, _, count in kinds)
        return await self._tally([Run(place, f"{kind}:", query) for place, kind, _ in kinds], _kind_index)

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
        runs = [Run(place, f"{kind}:", query) for place, kind, _ in await self._kinds(query)]
        return await self._merged(runs, _kind_index, query)

    def _key_runs(self, query: SagaQuery) -> list[Run]:
        assert query.key is not None
        beginning = f"{key_text(*query.key)}:"
        return [Run(place, beginning, query) for place in self._keys.places]

    async def _merged(self, runs: Sequence[Run], index: Index, query: SagaQuery) -> list[SagaSummary]:
        async def fetch(numbers: Sequence[int], count: int) -> dict[int, list[tuple[str, Place]]]:
            asked = [runs[number] for number in numbers]
            found = await self._browse(asked, index, query.order, count)
            return {
                numbers[at]: [(entry.removeprefix(asked[at].beginning), asked[at].place) for entry in entries]
                for at, entries in found.items()
            }

        # what is left of an entry is the time of the start and the id
        entries = await merged(len(runs), fetch, lambda entry: entry[0], query.limit, newest=query.order == "newest")
        return await self._summaries([place.saga(entry.partition(":")[2]) for entry, place in entries])

    async def _narrow(self, query: SagaQuery) -> list[SagaSummary]:
        """Few sagas are expected: look at each."""
        if query.key is not None:
            if query == _by_key_alone(query):
                return await self._merged(self._key_runs(query), _key_index, query)
            runs = self._key_runs(query)
            found = await self._browse(runs, _key_index, "oldest", _ALL)
            ids = [
                (runs[at].place, entry.removeprefix(runs[at].beginning).partition(":")[2])
                for at, entries in found.items()
                for entry in entries
            ]
        else:
            runs = [Run(place, query.id_prefix or "", _ANY) for place in self._keys.places]
            found = await self._browse(runs, lambda place: place.ids, "oldest", _ALL)
            ids = [(runs[at].place, saga_id) for at, entries in found.items() for saga_id in entries]
        lines = await self._summaries([place.saga(saga_id) for place, saga_id in ids])
        return [line for line in lines if fits(query, line)]

    async def _browse(self, runs: Sequence[Run], index: Index, order: str, count: int) -> dict[int, list[str]]:
        groups = list(self._link.together(range(len(runs)), lambda number: runs[number].place.prefix, SETS))
        calls = [
            scripts.BROWSE.call(
                [index(runs[number].place) for number in group],
                (order, count, *(bound for number in group for bound in (runs[number].low, runs[number].high))),
            )
            for group in groups
        ]
        return {
            group[position - 1]: [entry.decode() for entry in entries]
            for group, answer in zip(groups, await self._link.run(calls), strict=True)
            for position, entries in answer
        }

    async def _tally(self, runs: Sequence[Run], index: Index) -> int:
        calls = [
            scripts.TALLY.call(
                [index(run.place) for run in group], [bound for run in group for bound in (run.low, run.high)]
            )
            for group in self._link.together(runs, lambda run: run.place.prefix, SETS)
        ]
        return sum(await self._link.run(calls))

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


_ANY: Final = SagaQuery()


def _kind_index(place: Place) -> str:
    return place.index


def _key_index(place: Place) -> str:
    return place.keys


def _is_narrow(query: SagaQuery) -> bool:
    return query.key is not None or bool(query.id_prefix)


def _by_key_alone(query: SagaQuery) -> SagaQuery:
    """The query without the filters that the index of business keys cannot answer."""
    return replace(query, saga=None, phase=None, stuck=None, paused=None, waived=None, id_prefix=None)


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
        keys=read_keys(head.keys),
    )
