"""Folders for tests that look at sockets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket; pytest's own grow with the name of the test."""
    with tempfile.TemporaryDirectory(prefix="amends-") as folder:
        yield Path(folder)
