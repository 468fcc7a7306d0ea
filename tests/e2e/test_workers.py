"""`amends run --workers N`: several real processes under one supervisor, which may be killed at any time."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from tests.e2e.test_cli import SLOW
from tests.support.processes import SHOP, Process, amends, environment, running

from amends.coordinator import SagaClient

pytestmark = pytest.mark.slow


class Crew:
    """A supervisor with its workers, and where they work."""

    def __init__(self, process: Process, pids: list[int], broker: str, store: str) -> None:
        self.process, self.pids, self.broker, self.store = process, pids, broker, store

    async def place(self, prefix: str, count: int) -> None:
        """Place orders, and see each completed."""
        async with SagaClient(broker=self.broker, store=self.store) as sagas:
            handles = [
                await sagas.start("place-order", {"sku": "book"}, id=f"{prefix}-{number}") for number in range(count)
            ]
            outcomes = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
            assert {outcome.status for outcome in outcomes} == {"completed"}

    def wait_for(self, *patterns: str) -> None:
        """Lines that match these have been said, in any order; those said before count too."""
        while not all(any(re.search(pattern, line) for line in self.process.lines) for pattern in patterns):
            self.process.wait_for("")


@contextmanager
def crew(cwd: Path, broker: str, store: str, *arguments: str) -> Iterator[Crew]:
    urls = ("--broker", broker, "--store", store, *arguments)
    with running(SHOP, "--workers", "2", "--json", *urls, cwd=cwd, until='"running":true') as process:
        document = json.loads(process.lines[-1])
        yield Crew(process, document["workers"], broker, store)


def live_and_die(crew: Crew) -> None:
    """What is true of a crew anywhere."""
    crew.wait_for(r"held=4 of=8 +worker=1", r"held=4 of=8 +worker=2")
    asyncio.run(crew.place("both", 20))

    os.kill(crew.pids[1], signal.SIGKILL)
    crew.wait_for(r"a worker ended; another takes its place +ended='by SIGKILL' in_s=0.1 worker=2")
    asyncio.run(crew.place("one", 10))
    crew.wait_for(r"a worker has taken its place +pid=\d+ worker=2")
    asyncio.run(crew.place("both again", 20))

    assert crew.process.stop() == 0
    assert crew.process.gone()
    assert not [line for line in crew.process.lines if "Traceback" in line]


def test_two_workers_share_one_file_and_one_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with crew(tmp_path, f"embedded:{tmp_path}/amends.db", f"sqlite:{tmp_path}/amends.db") as two:
        live_and_die(two)


def test_two_workers_share_rabbitmq_and_redis_and_one_that_is_killed_is_replaced(
    tmp_path: Path, rabbitmq_url: str, redis_url: str
) -> None:
    name = f"workers-{uuid4().hex[:8]}"
    broker, store = f"{rabbitmq_url}?namespace={name}", f"{redis_url}?namespace={name}"
    with crew(tmp_path, broker, store, "--inbox", store) as two:
        live_and_die(two)


def test_what_runs_is_told_once_and_so_is_the_end(tmp_path: Path) -> None:
    with running(SHOP, "--workers", "2", cwd=tmp_path) as process:
        assert process.stop() == 0
    told = [line for line in process.lines if not re.match(r"\d{4}-", line)]
    assert [line.split()[0] for line in told] == [
        "saga", "participant", "participant", "participant", "broker", "store", "workers", "Running.", "Stopping:",
        "Stopped",
    ]  # fmt: skip


def test_no_worker_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    urls = f"embedded:{tmp_path}/amends.db", f"sqlite:{tmp_path}/amends.db"
    with crew(tmp_path, *urls, "--log", "json") as two:
        two.process.signal(signal.SIGKILL)
        if not two.process.gone():
            for pid in two.pids:
                os.kill(pid, signal.SIGKILL)
            pytest.fail("a worker has outlived its supervisor")
        two.process.wait()
    events = [json.loads(line) for line in two.process.lines if '"event"' in line]
    alone = [event["worker"] for event in events if event["event"] == "the supervisor of this worker is gone; stopping"]
    assert sorted(alone) == [1, 2]


@pytest.fixture
def packing(tmp_path: Path) -> Iterator[Process]:
    """Two workers, one of which has an action in hand."""
    (tmp_path / "slow.py").write_text(SLOW)
    os.mkfifo(tmp_path / "go")
    with running("slow", "--workers", "2", cwd=tmp_path) as process:
        assert amends("start", "order", "--id", "order-1", cwd=tmp_path).returncode == 0
        process.wait_for("packing")
        yield process


def test_workers_finish_what_is_in_hand(tmp_path: Path, packing: Process) -> None:
    packing.signal(signal.SIGINT)
    packing.wait_for("Stopping")
    (tmp_path / "go").write_text("")
    assert packing.wait() == 0
    assert packing.lines[-2:] == ["packed", "Stopped"]


def test_a_second_signal_ends_all_workers_at_once(packing: Process) -> None:
    packing.signal(signal.SIGTERM)
    packing.wait_for("Stopping")
    packing.signal(signal.SIGTERM)
    assert packing.wait() == 128 + signal.SIGTERM
    assert packing.gone()


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["lost_module"], 2, "there is no module 'lost_module'"),
        ([SHOP, "--broker", "memory:"], 2, "--workers 2 does not go with the broker memory:"),
        ([SHOP, "--store", "memory:shop"], 2, "--workers 2 does not go with the store memory:shop"),
        ([SHOP, "--workers", "0"], 2, "--workers: 0 cannot be the workers"),
    ],
)
def test_what_cannot_start_is_told_once(tmp_path: Path, arguments: list[str], code: int, problem: str) -> None:
    ended = amends("run", *arguments, cwd=tmp_path, **({} if "--workers" in arguments else {"AMENDS_WORKERS": "2"}))
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.count(problem) == 1, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("user", ["guest:wrong", "nobody:guest"])
def test_a_wrong_password_is_told_by_one_worker_while_the_others_wait(
    tmp_path: Path, rabbitmq_url: str, user: str
) -> None:
    wrong = re.sub(r"//\w+:\w+@", f"//{user}@", rabbitmq_url)
    process = Process("run", SHOP, "--broker", wrong, "--workers", "3", cwd=tmp_path)
    try:
        process.wait_for("the start waits; it goes on by itself", timeout_s=90)
        assert process.stop() == 0
        assert sum("the start waits" in line for line in process.lines) == 1
        assert not [line for line in process.lines if "Traceback" in line]
    finally:
        process.close()


def test_participants_do_not_need_a_store_to_be_shared(tmp_path: Path) -> None:
    arguments = ("--only", "participants", "--store", "memory:", "--workers", "2")
    with running(SHOP, *arguments, cwd=tmp_path) as process:
        assert process.stop() == 0


NOSY = """
import os, sys
from amends.contracts import Command
from amends.participants import Participant

print("seen:", "AMENDS_NUMBER_OF_THIS_WORKER" in os.environ, repr(sys.stdin.read()), flush=True)
shop = Participant("shop")

class Sell(Command[None], service="shop"):
    pass

@shop.action
def sell(command: Sell) -> None:
    pass
"""


def test_the_channel_to_the_supervisor_is_not_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "nosy.py").write_text(NOSY)
    with running("nosy", "--workers", "2", cwd=tmp_path) as process:
        assert process.stop() == 0
    assert [line for line in process.lines if line.startswith("seen:")] == ["seen: False ''"] * 3


STUBBORN = """
import signal, socket, sys
from amends.coordinator.cli.worker import Worker
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = Worker(1, socket.socket(fileno=int(sys.argv[1])), grace_s=0.1)
worker.ready()
signal.sigwait([signal.SIGUSR1])
"""


def test_a_worker_that_does_not_heed_the_signal_ends_all_the_same_when_its_supervisor_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment()
    ) as process:
        theirs.close()
        assert ours.recv(1) == b"r"
        ours.close()
        assert process.wait(30) == 128 + signal.SIGTERM
