"""Snapshots as the list of a saga holds them: without what its key, its head and its start say already."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from amends.coordinator.core.snapshot import Snapshot, decode_snapshot, encode_snapshot
from amends.coordinator.stores.redis.keys import Head

_SAME: Final = "="
"""Stands for the incarnation, which most sagas take as correlation id."""


def encode_body(snapshot: Snapshot) -> bytes:
    same = snapshot.correlation_id == snapshot.incarnation
    correlation_id = _SAME if same else snapshot.correlation_id
    return encode_snapshot(
        replace(snapshot, saga="", id="", incarnation="", commit_id="", correlation_id=correlation_id)
    )


def decode_body(body: bytes, saga_id: str, saga: str, head: Head) -> Snapshot:
    """Raises `msgspec.MsgspecError` when the bytes are no snapshot."""
    stored = decode_snapshot(body)
    return replace(
        stored,
        saga=saga,
        id=saga_id,
        incarnation=head.incarnation,
        commit_id=head.commit_id,
        correlation_id=head.incarnation if stored.correlation_id == _SAME else stored.correlation_id,
    )
