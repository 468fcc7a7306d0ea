"""Runs the contestants: each with servers and processes of its own, the same load, the same questions afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, TypeAlias

import msgspec

from benchmarks.measures import Measure
from benchmarks.servers.parts import Part
from benchmarks.servers.recording import record
from benchmarks.servers.results import Result
from benchmarks.servers.site import DURABILITY, Site

_WARM_UP: Final = 512
_ROLES: Final = ("coordinator", "participant", "load")

Contestant: TypeAlias = Callable[[int, float], Result]
"""Does so many sagas as fast as it can, and then for so many seconds half as many a second."""


def amends(broker: str, coordinators: int = 1) -> Contestant:
    """Coordinators, one participant and the load, a process each."""
    roles = ["coordinator"] * coordinators + ["participant", "load"]

    def run(sagas: int, seconds: float) -> Result:
        with Site(broker) as site:
            commands = [(role, Part.of("benchmarks.servers.product", role, site.broker, site.redis)) for role in roles]
            return _measure(site, commands, sagas, seconds, DURABILITY[broker])

    return run


def bare(broker: str, way: str) -> Contestant:
    """The loop that only repeats, as the same processes."""

    def run(sagas: int, seconds: float) -> Result:
        with Site(broker) as site:
            file = site.folder / "recording"
            asyncio.run(record(site.redis)).save(file)
            site.empty_redis()
            words = (way, str(file), site.broker, site.redis)
            commands = [(role, Part.of("benchmarks.servers.bare", role, *words)) for role in _ROLES]
            return _measure(site, commands, sagas, seconds, DURABILITY[broker])

    return run


def _measure(site: Site, parts: Sequence[tuple[str, Part]], sagas: int, seconds: float, note: str) -> Result:
    with ExitStack() as stack:
        for role, part in parts:
            stack.enter_context(part)
            site.join(role, part.pid)
        load = parts[-1][1]
        load.ask("saturate", min(_WARM_UP, sagas))
        cpu_s, bytes = site.cpu_s(), site.bytes()
        full = msgspec.convert(load.ask("saturate", sagas), Measure)
        spent, left = grown(cpu_s, site.cpu_s(), 1000 / sagas), grown(bytes, site.bytes(), 1000 / sagas)
        assert full.rate is not None
        per_second = full.rate / 2
        half = msgspec.convert(load.ask("trickle", max(1, round(seconds * per_second)), per_second), Measure)
    return Result(rate=full.rate, p50_ms=half.p50_ms, p99_ms=half.p99_ms, cpu_s=spent, bytes=left, note=note)


def grown(before: Mapping[str, float], after: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: factor * (after[name] - before[name]) for name in after}


AMENDS: Final = "RabbitMQ: amends"

RABBITMQ: Final[dict[str, Contestant]] = {
    "RabbitMQ: bare loop": bare("rabbitmq", "rabbitmq-batched"),
    "RabbitMQ: bare loop, packs of 32": bare("rabbitmq", "rabbitmq-packed"),
    "RabbitMQ: bare loop, a call for each message": bare("rabbitmq", "rabbitmq-plain"),
    AMENDS: amends("rabbitmq"),
}
KAFKA: Final[dict[str, Contestant]] = {
    "Kafka: bare loop": bare("kafka", "kafka"),
    "Kafka: bare loop, packs of 32": bare("kafka", "kafka-packed"),
    "Kafka: amends": amends("kafka"),
}
