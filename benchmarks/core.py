"""The core alone: transitions per second, with no store, no broker and no event loop."""

from __future__ import annotations

from benchmarks.measures import Measure, Stopwatch
from benchmarks.script import run_core


def core(sagas: int) -> Measure:
    """Per transition, not per saga."""
    with Stopwatch() as watch:
        transitions = run_core(sagas)
    return watch.measure(transitions)
