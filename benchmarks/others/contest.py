"""DBOS, Restate and Celery with the same orders, each with servers of its own, used as its documentation says.

Where a program scales by processes there are two, as many as the cores of a small machine; how many orders at a time it
does best with is tried out first.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeAlias
from urllib.request import Request, urlopen

from msgspec import Struct
from tests.support.servers import PrivateRabbitmq, PrivateRedis, free_port

from benchmarks.measures import latency
from benchmarks.others.environments import python_of, restate_server
from benchmarks.others.postgres import PrivatePostgres
from benchmarks.others.programs_of import Program, RestateServer
from benchmarks.servers.contest import Contestant, grown
from benchmarks.servers.parts import Part
from benchmarks.servers.results import Result
from benchmarks.servers.site import REDIS
from benchmarks.servers.spent import bytes_written, cpu_s

_AT_ONCE: Final = (8, 32, 128)
"""How many orders at a time are tried, in all."""
_PROCESSES: Final = 2
_MODULES: Final = "benchmarks.others.programs"


class _Stage(Struct):
    """What is there for one run: who makes the load, and the parts whose cost counts."""

    loads: Sequence[Part]
    parts: dict[str, list[int]]
    note: str = ""

    def cpu_s(self) -> dict[str, float]:
        return {name: sum(map(cpu_s, pids)) for name, pids in self.parts.items()}

    def bytes(self) -> dict[str, float]:
        return {"all disk writes": float(sum(bytes_written(pid) for pids in self.parts.values() for pid in pids))}


_Setting: TypeAlias = Callable[[], AbstractContextManager[_Stage]]


def other(setting: _Setting) -> Contestant:
    """Looks for its best load, then measures that; `sagas` is no limit here, time is."""

    def run(sagas: int, seconds: float) -> Result:
        with setting() as stage:
            # not before the first has ended is everything up
            _saturate(stage, 0.1, 1)
            rates = {at_once: _saturate(stage, seconds / 2, at_once)[0] for at_once in _AT_ONCE}
            at_once = max(rates, key=lambda tried: rates[tried])
            spent, written = stage.cpu_s(), stage.bytes()
            rate, every = _saturate(stage, seconds, at_once)
            cpu, bytes = (grown(*ba, 1000 / max(1, every)) for ba in ((spent, stage.cpu_s()), (written, stage.bytes())))
            half = latency(_trickle(stage, seconds, rate / 2))
        note = f"{stage.note}; {at_once} at a time"
        return Result(rate=rate, p50_ms=half.p50_ms, p99_ms=half.p99_ms, cpu_s=cpu, bytes=bytes, note=note)

    return run


def _saturate(stage: _Stage, seconds: float, at_once: int) -> tuple[float, float]:
    """How many ended per second, and how many were made in all."""
    for load in stage.loads:
        load.tell("saturate", seconds, max(1, at_once // len(stage.loads)))
    told = [load.hear() for load in stage.loads]
    return sum(one["rate"] for one in told), sum(one["all"] for one in told)


def _trickle(stage: _Stage, seconds: float, per_second: float) -> list[float]:
    for load in stage.loads:
        load.tell("trickle", seconds, max(0.1, per_second / len(stage.loads)))
    return [took for load in stage.loads for took in load.hear()]


def _dbos_on_postgres(config: dict[str, str], note: str) -> _Setting:
    @contextmanager
    def setting() -> Iterator[_Stage]:
        command = [python_of("dbos"), "-m", f"{_MODULES}.dbos_orders"]
        with ExitStack() as stack:
            server = stack.enter_context(PrivatePostgres(config))
            loads = [stack.enter_context(Part([*command, server.url])) for _ in range(_PROCESSES)]
            parts = {"PostgreSQL": [server.pid], "program": [load.pid for load in loads]}
            yield _Stage(loads, parts, note)

    return setting


@contextmanager
def _dbos_on_sqlite() -> Iterator[_Stage]:
    with tempfile.TemporaryDirectory(prefix="amends-bench-") as folder, ExitStack() as stack:
        command = [python_of("dbos"), "-m", f"{_MODULES}.dbos_orders", f"sqlite:///{folder}/orders.sqlite"]
        load = stack.enter_context(Part(command))
        yield _Stage([load], {"program": [load.pid]}, "its own settings of SQLite, one process")


@contextmanager
def _restate() -> Iterator[_Stage]:
    python = python_of("restate")
    with ExitStack() as stack:
        server = stack.enter_context(RestateServer(restate_server()))
        port = free_port()
        granian = [str(Path(python).parent / "granian"), "--interface", "asgi", "--http", "2", "--workers", "2"]
        app = [*granian, "--host", "127.0.0.1", "--port", str(port), f"{_MODULES}.restate_orders:app"]
        service = stack.enter_context(Program(app, port))
        where = json.dumps({"uri": f"http://127.0.0.1:{port}"}).encode()
        headers = {"content-type": "application/json"}
        with urlopen(Request(f"{server.admin_url}/deployments", where, headers), timeout=30):
            pass
        load = stack.enter_context(Part([python, "-m", f"{_MODULES}.restate_orders", server.url]))
        parts = {"server": [server.pid], "program": [service.pid], "load": [load.pid]}
        yield _Stage([load], parts, "one node, its own settings; the steps run in the service's two processes")


@contextmanager
def _celery() -> Iterator[_Stage]:
    python = python_of("celery")
    with ExitStack() as stack:
        broker, redis = stack.enter_context(PrivateRabbitmq()), stack.enter_context(PrivateRedis(REDIS))
        environment = {"ORDERS_BROKER": broker.url, "ORDERS_BACKEND": redis.url}
        worker = [
            python,
            "-m",
            "celery",
            "-A",
            f"{_MODULES}.celery_tasks",
            "worker",
            "-c",
            str(_PROCESSES),
            "-l",
            "ERROR",
        ]
        workers = stack.enter_context(Program(worker, None, environment))
        load = stack.enter_context(Part([python, "-m", f"{_MODULES}.celery_orders"], environment))
        parts = {"broker": [broker.pid], "Redis": [redis.pid], "program": [workers.pid], "load": [load.pid]}
        yield _Stage([load], parts, "quorum queue, confirms, late acknowledgement, Redis everysec, two workers")


OTHERS: Final[dict[str, Contestant]] = {
    "Restate": other(_restate),
    "Celery": other(_celery),
    "DBOS on PostgreSQL": other(_dbos_on_postgres({}, "synchronous_commit=on, two processes")),
    "DBOS on PostgreSQL, commits not awaited": other(
        _dbos_on_postgres({"synchronous_commit": "off"}, "synchronous_commit=off: like Redis everysec, two processes")
    ),
    "DBOS on SQLite": other(_dbos_on_sqlite),
}
