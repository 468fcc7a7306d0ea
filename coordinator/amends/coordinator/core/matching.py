"""Whether a message is the one that somebody waits for."""

from __future__ import annotations

from typing import Any

import msgspec

from amends.contracts import codec_for
from amends.coordinator.core.snapshot import Awaits, Recording


def fields_of(recording: Recording) -> dict[str, bytes]:
    """The top-level fields of a message, each as JSON, as `where` values are compared. Raises `TerminalError`."""
    fields: dict[str, Any] = codec_for(recording.content_type).decode(recording.data, dict[str, Any])
    return {name: msgspec.json.encode(value) for name, value in fields.items()}


def matches(awaits: Awaits, recording: Recording) -> bool:
    """Whether a message is of the awaited type and has the awaited values."""
    if awaits.type != recording.type:
        return False
    if not awaits.where:
        return True
    fields = fields_of(recording)
    return all(fields.get(name) == value for name, value in awaits.where)
