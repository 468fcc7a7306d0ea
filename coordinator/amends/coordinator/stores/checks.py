"""What every store asks of the commits it is given."""

from __future__ import annotations

from collections.abc import Sequence

from amends.contracts import InternalError
from amends.coordinator.store import Commit


def check_commits(commits: Sequence[Commit]) -> None:
    """Raise `InternalError` when commits of one call are about one saga, or one changes the incarnation of its saga."""
    if len({commit.snapshot.id for commit in commits}) < len(commits):
        raise InternalError("two commits of one call are about the same saga")
    for commit in commits:
        if commit.predecessor is not None and commit.predecessor.incarnation != commit.snapshot.incarnation:
            raise InternalError(f"a commit of saga {commit.snapshot.id!r} changes its incarnation")
