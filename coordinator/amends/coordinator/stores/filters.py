"""Whether a line belongs to a list: what an index has not already answered."""

from __future__ import annotations

from amends.coordinator.store import SagaQuery, SagaSummary


def fits(query: SagaQuery, line: SagaSummary) -> bool:
    wanted = (query.saga, query.phase, query.stuck, query.paused, query.waived)
    has = (line.saga, line.phase, line.stuck, line.paused, line.waived)
    return (
        all(want is None or want == is_ for want, is_ in zip(wanted, has, strict=True))
        and (query.key is None or line.keys.get(query.key[0]) == query.key[1])
        and (query.started_after is None or line.started_at >= query.started_after)
        and (query.started_before is None or line.started_at < query.started_before)
        and line.id.startswith(query.id_prefix or "")
    )
