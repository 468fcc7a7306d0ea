"""The public names of each root. A name in here is a promise: it goes only with a major version."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOTS = ("contracts", "brokers", "participants", "choreography", "coordinator")

PUBLIC = {
    "amends.contracts": {
        "AmendsError", "Catalog", "Clock", "Codec", "Command", "Compensation", "ContractError", "DecodeError",
        "Duration", "EffectKey", "Envelope", "Event", "Failure", "InternalError", "InvalidIdError", "JSON", "Kind",
        "MSGPACK", "Message", "Rejection", "Reply", "ReplyOutcome", "Signal", "SystemClock", "TerminalError",
        "TransientError", "UnknownTypeError", "UsageError", "as_timedelta", "codec_for", "slot_of",
    },
    "amends.choreography": set(),
    "amends.coordinator": {
        "Compensate", "Coordinator", "CoordinatorConfig", "Decision", "Definition", "Failure", "Handle", "NoAnswer",
        "NotCompleted", "Outcome", "Policy", "Publish", "Refused", "Retention", "Retry", "Saga", "SagaClient",
        "SagaDefinitionError", "SagaQuery", "SagaStore", "SagaSummary", "Skip", "Sleep", "StillGoing", "StoreCorrupt",
        "StoreUnavailable", "SyncSagaClient", "UnknownSagaId", "WaitFor", "definition_of", "step",
    },
    "amends.coordinator.testing": {"Given", "VirtualClock", "World", "given"},
}  # fmt: skip


def exported(module: str) -> set[str]:
    """The names that a module's source re-exports (`import X as X`)."""
    source = Path(importlib.import_module(module).__file__ or "").read_text()
    return {line.rpartition(" as ")[2].strip() for line in source.splitlines() if " as " in line and "import" in line}


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_the_promised_ones(module: str) -> None:
    assert exported(module) == PUBLIC[module]
    assert all(hasattr(importlib.import_module(module), name) for name in PUBLIC[module])


@pytest.mark.parametrize("root", ROOTS)
def test_a_root_holds_only_its_own_part_of_the_namespace(root: str) -> None:
    source = Path(__file__).parents[2] / root
    assert [entry.name for entry in source.iterdir()] == ["amends"]
    parts = [entry.name for entry in (source / "amends").iterdir() if entry.name != "__pycache__"]
    assert parts == [root], "an __init__.py here would hide the other roots"
    assert (source / "amends" / root / "py.typed").is_file()


def test_the_library_can_be_imported_without_the_command_line() -> None:
    probe = (
        "import sys, amends.coordinator, amends.participants; "
        "print([m for m in ('typer', 'click', 'uvloop') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
