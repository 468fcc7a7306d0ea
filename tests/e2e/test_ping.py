"""`amends ping`: an honest answer about real servers and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.processes import SHOP, amends, running
from tests.support.servers import PrivateRedis

pytestmark = pytest.mark.slow

NOBODY = "amqp://guest:guest@127.0.0.1:1/"


def test_what_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    ended = amends("ping", cwd=tmp_path)
    assert ended.returncode == 5
    assert ended.stdout.count("there is no file") == 2
    assert not list(tmp_path.iterdir())


def test_the_files_of_a_running_process_answer(tmp_path: Path) -> None:
    with running(SHOP, cwd=tmp_path):
        ended = amends("ping", "--json", cwd=tmp_path)
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["ok"]) == (0, True)
    assert [part["part"] for part in document["parts"]] == ["broker", "store"]


def test_servers_answer_and_passwords_are_not_shown(tmp_path: Path, rabbitmq_url: str, redis_url: str) -> None:
    arguments = ("--broker", rabbitmq_url, "--store", redis_url, "--inbox", redis_url)
    ended = amends("ping", *arguments, cwd=tmp_path)
    assert ended.returncode == 0, ended
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["broker", "store", "inbox"]
    assert "guest:***@" in ended.stdout
    assert "guest:guest" not in ended.stdout + ended.stderr


def test_one_that_is_away_is_named_with_its_problem(tmp_path: Path, private_redis: Callable[..., PrivateRedis]) -> None:
    redis = private_redis({"appendonly": "yes", "appendfsync": "always"})
    arguments = ("--broker", NOBODY, "--store", redis.url, "--json")
    parts = json.loads(amends("ping", *arguments, cwd=tmp_path).stdout)["parts"]
    assert [part["problem"] is None for part in parts] == [False, True]
    assert "127.0.0.1:1" in parts[0]["problem"]
    redis.kill()
    ended = amends("ping", *arguments, cwd=tmp_path)
    assert ended.returncode == 5
    assert [part["problem"] is None for part in json.loads(ended.stdout)["parts"]] == [False, False]


def test_what_a_server_is_warned_of_does_not_come_between_a_result(
    tmp_path: Path, private_redis: Callable[..., PrivateRedis]
) -> None:
    forgetful = private_redis()
    for command in ("list", "ping"):
        ended = amends(command, "--json", "--store", forgetful.url, cwd=tmp_path)
        assert "Redis keeps no append-only file" in ended.stderr
        assert isinstance(json.loads(ended.stdout), dict)


def test_a_url_that_cannot_be_is_a_mistake_and_no_outage(tmp_path: Path) -> None:
    ended = amends("ping", "--broker", "nats://host", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "nats: is no kind of broker" in ended.stderr
