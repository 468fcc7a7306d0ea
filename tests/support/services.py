"""Real servers for tests, as fixtures: `rabbitmq_url`, `redis_url`, `kafka_url`.

A server comes from `AMENDS_TEST_RABBITMQ_URL` (`…_REDIS_URL`, `…_KAFKA_URL`); else from docker, where an engine runs
(through testcontainers); else from the programs on this machine (`tests/services --install` gets them). It is started
when the first test asks for it, shared by all workers of the run, and stopped with it. Tests share it: use names of
your own. Where it cannot be had its tests are skipped, or fail with `AMENDS_REQUIRE_SERVICES=1`.
`AMENDS_TEST_REDIS=valkey` takes Valkey for Redis (`tests/services --install valkey`).

For a server that a test may kill, pause and restart there are `PrivateRabbitmq`, `PrivateRedis` and `PrivateKafka`
(context managers), and fixtures that make them: `private_rabbitmq`, `private_redis`, `private_kafka`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NoReturn, TypeVar, cast

import pytest
from tests.support.containers import from_docker
from tests.support.keeper import start_keeper, stop_keeper
from tests.support.servers import PrivateKafka, PrivateRabbitmq, PrivateRedis, Server, ServiceMissing

ServerT = TypeVar("ServerT", bound=Server)


@pytest.fixture(scope="session")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`amqp://guest:guest@127.0.0.1:PORT/`, the same for all tests of the run: take a namespace of your own."""
    return _shared("rabbitmq", tmp_path_factory)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`redis://127.0.0.1:PORT/N`, where N is this worker's own database number."""
    url = _shared("redis", tmp_path_factory)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return url if "AMENDS_TEST_REDIS_URL" in os.environ else f"{url.rpartition('/')[0]}/{int(worker) % 64}"


@pytest.fixture(scope="session")
def kafka_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`kafka://127.0.0.1:PORT`, the same for all tests of the run: take topic names of your own."""
    return _shared("kafka", tmp_path_factory)


@pytest.fixture
def private_rabbitmq() -> Iterator[Callable[..., PrivateRabbitmq]]:
    """Makes RabbitMQ nodes that this test may do anything to."""
    with ExitStack() as stack:
        yield lambda **options: _private(stack, PrivateRabbitmq, **options)


@pytest.fixture
def private_redis() -> Iterator[Callable[..., PrivateRedis]]:
    """Makes Redis servers that this test may do anything to: `private_redis({"appendonly": "yes"})`."""
    with ExitStack() as stack:
        yield lambda *config, **options: _private(stack, PrivateRedis, *config, **options)


@pytest.fixture
def private_kafka() -> Iterator[Callable[..., PrivateKafka]]:
    """Makes Kafka brokers that this test may do anything to."""
    with ExitStack() as stack:
        yield lambda **options: _private(stack, PrivateKafka, **options)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The first process of the run stops what its workers have started."""
    if hasattr(session.config, "workerinput"):
        return
    factory: Any = getattr(session.config, "_tmp_path_factory", None)
    if factory is not None and getattr(factory, "_basetemp", None) is not None:
        for folder in (factory.getbasetemp() / "services").glob("*"):
            stop_keeper(folder)


def _shared(name: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    if url := os.environ.get(f"AMENDS_TEST_{name.upper()}_URL"):
        return url
    worker = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    root = base.parent if worker else base
    try:
        return from_docker(name) or start_keeper(
            name, root / "services" / name, os.getppid() if worker else os.getpid()
        )
    except ServiceMissing as error:
        do_without(name, error)


def _private(stack: ExitStack, server: type[ServerT], *arguments: Any, **options: Any) -> ServerT:
    try:
        return cast(ServerT, stack.enter_context(server(*arguments, **options)))
    except ServiceMissing as error:
        do_without(server.name, error)


def do_without(name: str, error: ServiceMissing) -> NoReturn:
    problem = f"NOT TESTED on a real {name}: {error}"
    if os.environ.get("AMENDS_REQUIRE_SERVICES") == "1":
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)
