"""Servers that fail under whole processes: work stops, is not lost, is complained of once, and goes on by itself."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import pytest
from redis import Redis
from tests.support.processes import SHOP, Process, amends, running
from tests.support.redis_servers import ask
from tests.support.servers import PrivateKafka, PrivateRabbitmq, PrivateRedis, Server

pytestmark = pytest.mark.slow

AOF = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


class Shop(NamedTuple):
    """A coordinator and the participants, each a process, with the same settings."""

    folder: Path
    settings: dict[str, str]
    sagas: Process
    services: Process

    def start(self, id: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return amends("start", "place-order", "sku=book", "--id", id, *arguments, cwd=self.folder, **self.settings)


OpenShop = Callable[..., Shop]


@pytest.fixture
def open_shop(tmp_path: Path) -> Iterator[OpenShop]:
    """Runs the shop on the brokers and stores of these URLs."""
    with ExitStack() as stack:

        def run(**settings: str) -> Shop:
            variables = {f"AMENDS_{name.upper()}": value for name, value in settings.items()}
            processes = [
                stack.enter_context(running(SHOP, "--only", only, cwd=tmp_path, **variables))
                for only in ("sagas", "participants")
            ]
            return Shop(tmp_path, variables, *processes)

        yield run


def complaints(process: Process) -> list[str]:
    """The problems that a process has told, without the time."""
    return [line.partition("[warning")[2] for line in process.lines if "[warning" in line or "[error" in line]


def assert_told_once(process: Process) -> None:
    told = complaints(process)
    assert told
    assert len(told) == len(set(told)), told


# Redis, under the sagas and under the inbox


class Fault(NamedTuple):
    """How a server is spoilt and mended, and what is said of it."""

    spoil: Callable[[PrivateRedis], object]
    mend: Callable[[PrivateRedis], object]
    words: str


def change_password(redis: PrivateRedis) -> None:
    ask(redis, "CONFIG", "SET", "requirepass", "new")
    with Redis(port=redis.port, password="new") as raw:
        raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def change_password_back(redis: PrivateRedis) -> None:
    with Redis(port=redis.port, password="new") as raw:
        raw.config_set("requirepass", "")


def take_rights(redis: PrivateRedis) -> None:
    ask(redis, "ACL", "SETUSER", "default", "-@write", "-eval", "-evalsha")


def give_rights(redis: PrivateRedis) -> None:
    ask(redis, "ACL", "SETUSER", "default", "+@all")


FAULTS = {
    "unreachable": Fault(PrivateRedis.kill, PrivateRedis.start, "cannot be reached"),
    "full": Fault(
        lambda redis: ask(redis, "CONFIG", "SET", "maxmemory", "1"),
        lambda redis: ask(redis, "CONFIG", "SET", "maxmemory", "0"),
        "memory",
    ),
    "wrong password": Fault(change_password, change_password_back, "password"),
    "missing rights": Fault(take_rights, give_rights, "does not let this user work"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("spoilt", ["store", "inbox"])
def test_a_fault_of_redis_stops_the_work_is_told_once_and_passes(
    spoilt: str,
    fault: Fault,
    open_shop: OpenShop,
    private_redis: Callable[..., PrivateRedis],
    rabbitmq_url: str,
) -> None:
    servers = {"store": private_redis(AOF), "inbox": private_redis(AOF)}
    broker = f"{rabbitmq_url}?namespace=faults-{token_hex(4)}"
    shop = open_shop(broker=broker, store=servers["store"].url, inbox=servers["inbox"].url)
    assert shop.start("before", "--wait").returncode == 0

    fault.spoil(servers[spoilt])
    assert shop.start("during", "--timeout", "1").returncode in (0, 5)
    suffering = shop.sagas if spoilt == "store" else shop.services
    suffering.wait_for(fault.words)
    fault.mend(servers[spoilt])
    suffering.wait_for("goes on")

    assert shop.start("during", "--wait").returncode == 0
    for process in (shop.sagas, shop.services):
        assert process.stop() == 0
    assert_told_once(suffering)
    assert "no dead letters" in amends("dead", "list", cwd=shop.folder, **shop.settings).stdout.lower()


# brokers


def test_a_rabbitmq_that_goes_away_and_comes_back_is_told_once(
    open_shop: OpenShop, private_rabbitmq: Callable[..., PrivateRabbitmq], private_redis: Callable[..., PrivateRedis]
) -> None:
    rabbitmq, redis = private_rabbitmq(), private_redis(AOF)
    shop = open_shop(broker=rabbitmq.url, store=redis.url, inbox=redis.url)
    _outage_of_the_broker(shop, rabbitmq, rabbitmq.until_saved)


def test_a_kafka_that_goes_away_and_comes_back_is_told_once(
    open_shop: OpenShop, private_kafka: Callable[..., PrivateKafka], private_redis: Callable[..., PrivateRedis]
) -> None:
    kafka, redis = private_kafka(), private_redis(AOF)
    shop = open_shop(broker=kafka.url, store=redis.url, inbox=redis.url)
    _outage_of_the_broker(shop, kafka)


def _outage_of_the_broker(shop: Shop, broker: Server, before: Callable[[], None] = lambda: None) -> None:
    assert shop.start("before", "--wait").returncode == 0
    before()
    broker.kill()
    for process in (shop.sagas, shop.services):
        process.wait_for("[warning")
    broker.start()
    assert shop.start("after", "--wait", "--timeout", "60").returncode == 0
    for process in (shop.sagas, shop.services):
        assert process.stop() == 0
        assert_told_once(process)


# at the start


@pytest.mark.parametrize("only", ["sagas", "participants"])
def test_a_process_that_starts_before_its_redis_waits_for_it_and_says_so_once(
    only: str, private_redis: Callable[..., PrivateRedis], rabbitmq_url: str, tmp_path: Path
) -> None:
    redis = private_redis(AOF)
    redis.stop()
    broker = f"{rabbitmq_url}?namespace=faults-{token_hex(4)}"
    process = Process(
        "run", SHOP, "--only", only, "--broker", broker, "--store", redis.url, "--inbox", redis.url, cwd=tmp_path
    )
    try:
        process.wait_for("the start waits")
        redis.start()
        process.wait_for("the start goes on")
        process.wait_for("Running")
        assert process.stop() == 0
        assert_told_once(process)
    finally:
        process.close()


def test_a_user_without_rights_is_told_what_is_missing_and_goes_on_once_it_has_them(
    private_rabbitmq: Callable[..., PrivateRabbitmq], tmp_path: Path
) -> None:
    rabbitmq = private_rabbitmq()
    inbox = f"sqlite://{tmp_path}/inbox.db"
    process = Process("run", SHOP, "--broker", rabbitmq.url_of("reader", "reader"), "--inbox", inbox, cwd=tmp_path)
    try:
        line = process.wait_for("the start waits")
        assert "lacks rights" in line
        rabbitmq.control("set_permissions", "reader", ".*", ".*", ".*")
        process.wait_for("the start goes on")
        process.wait_for("Running")
    finally:
        process.close()


def test_a_wrong_password_is_told_and_it_can_be_stopped_all_the_same(
    private_rabbitmq: Callable[..., PrivateRabbitmq], tmp_path: Path
) -> None:
    process = Process("run", SHOP, "--broker", private_rabbitmq().url_of("guest", "wrong"), cwd=tmp_path)
    try:
        assert "wrong name or password" in process.wait_for("the start waits")
        assert process.stop() == 0
        assert not any("Running" in line for line in process.lines)
        assert_told_once(process)
    finally:
        process.close()
