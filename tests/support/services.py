"""Real servers for tests, as fixtures: `rabbitmq_url`, `redis_url`, `kafka_url`.

A server comes from `AMENDS_TEST_RABBITMQ_URL` (`…_REDIS_URL`, `…_KAFKA_URL`); else from docker, where an engine runs and
`testcontainers` is installed; else from the programs on this machine (`tests/services --install` gets them). It is started
when the first test asks for it, shared by all workers of the run, and stopped with it. Tests share it: use names of your
own. Where it cannot be had its tests are skipped, or fail with `AMENDS_REQUIRE_SERVICES=1`.

For a server that a test may kill, pause and restart there are `PrivateRabbitmq`, `PrivateRedis` and `PrivateKafka`
(context managers), and fixtures that make them: `private_rabbitmq`, `private_redis`, `private_kafka`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.support.keeper import __file__ as KEEPER
from tests.support.servers import START_S, PrivateKafka, PrivateRabbitmq, PrivateRedis, Server, ServiceMissing

ServerT = TypeVar("ServerT", bound=Server)

_IMAGES = {"rabbitmq": ("rabbitmq:4.1", 5672), "redis": ("redis:7.2", 6379), "kafka": ("apache/kafka:4.1.1", 9092)}


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


def start_keeper(name: str, folder: Path, owner: int) -> str:
    """Start a server that outlives this process, and give its URL; the one that is there if it runs already.

    It ends with the process `owner`, or with `stop_keeper` if that is 0. Raises `ServiceMissing`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        address, problem = folder / "address", folder / "problem"
        if address.exists():
            return address.read_text()
        if problem.exists():
            raise ServiceMissing(problem.read_text())
        with (folder / "keeper.log").open("ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, KEEPER, name, str(folder), str(owner)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + START_S + 30
        while time.monotonic() < until:
            if address.exists():
                # it is not ours to wait for
                keeper.returncode = 0
                return address.read_text()
            if keeper.poll() is not None:
                break
            time.sleep(0.05)
        keeper.kill()
        keeper.wait()
        said = problem.read_text() if problem.exists() else (folder / "keeper.log").read_text()[-2000:]
        raise ServiceMissing(said or f"{name} did not come up")


def stop_keeper(folder: Path) -> bool:
    """Stop what `start_keeper` has started, and wait until it is gone. False when nothing runs there."""
    pid_file = folder / "pid"
    if not (folder / "address").exists() or not pid_file.exists():
        return False
    pid = int(pid_file.read_text())
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + 30
        while (folder / "address").exists() and time.monotonic() < until:
            time.sleep(0.05)
    return True


def _shared(name: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    if url := os.environ.get(f"AMENDS_TEST_{name.upper()}_URL"):
        return url
    worker = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    root = base.parent if worker else base
    try:
        return _from_docker(name) or start_keeper(name, root / "services" / name, os.getppid() if worker else os.getpid())
    except ServiceMissing as error:
        _do_without(name, error)


def _private(stack: ExitStack, server: type[ServerT], *arguments: Any, **options: Any) -> ServerT:
    try:
        return stack.enter_context(server(*arguments, **options))
    except ServiceMissing as error:
        _do_without(server.name, error)


def _do_without(name: str, error: ServiceMissing) -> Any:
    problem = f"NOT TESTED on a real {name}: {error}"
    if os.environ.get("AMENDS_REQUIRE_SERVICES") == "1":
        pytest.fail(problem, pytrace=False)
    pytest.skip(problem)


_containers: dict[str, tuple[Any, str]] = {}


def _from_docker(name: str) -> str | None:
    """The URL of a container of this process, or None where there is no engine. Testcontainers removes it at the end."""
    if name in _containers:
        return _containers[name][1]
    try:
        from testcontainers.core.container import DockerContainer  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return None
    image, port = _IMAGES[name]
    if name == "kafka":
        from testcontainers.kafka import KafkaContainer  # type: ignore[import-not-found, unused-ignore]

        container = KafkaContainer().with_kraft().start()
        url = f"kafka://{container.get_bootstrap_server()}"
    else:
        container = DockerContainer(image).with_exposed_ports(port).start()
        where = f"{container.get_container_host_ip()}:{container.get_exposed_port(port)}"
        url = f"amqp://guest:guest@{where}/" if name == "rabbitmq" else f"redis://{where}/0"
    _containers[name] = (container, url)
    return url
