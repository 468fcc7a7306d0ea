"""`amends run` as users have it: real processes, one file between them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.processes import COMMAND, SHOP, Process, amends, environment, running

from amends.coordinator import SagaClient

pytestmark = pytest.mark.slow


def start(cwd: Path, saga_id: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return amends("start", "place-order", "sku=book", *arguments, "--id", saga_id, cwd=cwd)


def test_run_tells_once_what_runs_where_and_stops_gracefully_on_sigterm(tmp_path: Path) -> None:
    with running(SHOP, cwd=tmp_path) as process:
        told = "\n".join(process.lines)
        assert re.search(r"^saga +place-order\.v1 +4 steps$", told, re.M)
        assert re.search(r"^participant +inventory +1 action, 1 compensation$", told, re.M)
        assert re.search(rf"^broker +embedded:{tmp_path}/\.amends/amends\.db$", told, re.M)
        assert start(tmp_path, "order-1", "--wait").returncode == 0
        assert process.stop() == 0
        assert process.lines[-2:] == ["Stopping: finishing what is in hand", "Stopped"]
        assert not [line for line in process.lines if "Traceback" in line or "error" in line]


def test_run_tells_programs_as_json_and_logs_as_json(tmp_path: Path) -> None:
    with running(SHOP, "--json", "--log", "json", cwd=tmp_path, until='"running":true') as process:
        document = json.loads(process.lines[-1])
        assert (document["sagas"], document["store"]) == (["place-order.v1"], f"sqlite:{tmp_path}/.amends/amends.db")
        assert [participant["service"] for participant in document["participants"]] == [
            "inventory", "payments", "shipping"
        ]  # fmt: skip
        assert process.stop() == 0
        assert [line for line in process.lines if not isinstance(json.loads(line), dict)] == []


def test_ctrl_c_stops_gracefully_too(tmp_path: Path) -> None:
    with running(SHOP, cwd=tmp_path) as process:
        process.signal(signal.SIGINT)
        assert process.wait() == 0
        assert process.lines[-1] == "Stopped"


def test_what_was_asked_for_before_anybody_ran_is_done_once_somebody_does(tmp_path: Path) -> None:
    early = start(tmp_path, "early", "--timeout", "0.1")
    assert (early.returncode, early.stdout) == (5, "")
    with running(SHOP, cwd=tmp_path):
        assert start(tmp_path, "early", "--wait").returncode == 0


def test_two_processes_share_the_sagas_of_one_file(tmp_path: Path) -> None:
    with running(SHOP, cwd=tmp_path) as one, running(SHOP, cwd=tmp_path) as two:
        asyncio.run(_place_orders(tmp_path, "both", 20))
        assert one.stop() == 0
        asyncio.run(_place_orders(tmp_path, "two", 20))
        assert two.stop() == 0
        assert not [line for line in one.lines + two.lines if "Traceback" in line]
    listed = json.loads(amends("list", "--json", cwd=tmp_path).stdout)["sagas"]
    assert {(saga["phase"], saga["version"]) for saga in listed} == {("completed", 4)}
    assert len(listed) == 40
    assert json.loads(amends("dead", "list", "--json", cwd=tmp_path).stdout) == {"dead_letters": []}


async def _place_orders(folder: Path, prefix: str, count: int) -> None:
    file = f"{folder}/.amends/amends.db"
    async with SagaClient(broker=f"embedded:{file}", store=f"sqlite:{file}") as sagas:
        handles = [
            await sagas.start("place-order", {"sku": "book"}, id=f"{prefix}-{number}") for number in range(count)
        ]
        outcomes = await asyncio.gather(*(handle.result(timeout=30) for handle in handles))
        assert {outcome.status for outcome in outcomes} == {"completed"}


def test_sagas_and_each_participant_can_have_a_process_of_their_own(tmp_path: Path) -> None:
    with (
        running(SHOP, "--only", "sagas", cwd=tmp_path) as sagas,
        running(SHOP, "--only", "participants", "--service", "inventory", "--service", "payments", cwd=tmp_path),
        running(f"{SHOP}:shipping", cwd=tmp_path) as shipping,
    ):
        assert not [line for line in sagas.lines if line.startswith("participant")]
        assert [line.split()[:2] for line in shipping.lines if line.startswith(("saga", "participant", "store"))] == [
            ["participant", "shipping"]
        ]
        assert start(tmp_path, "order-1", "--wait").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["lost_module"], "there is no module 'lost_module'"),
        (["json"], "A module may hold Saga classes and Participant objects"),
        ([SHOP, "--service", "lost"], "there is no such participant; known: inventory, payments, shipping"),
        ([f"{SHOP}:inventory", "--only", "sagas"], "there are no sagas in"),
        ([SHOP, "--only", "lost"], "--only"),
        ([SHOP, "--log", "xml"], "--log: 'xml' cannot be the log"),
        ([SHOP, "--broker", "nats://host"], "nats: is no kind of broker"),
        ([], "Missing argument"),
    ],
)
def test_run_refuses_what_it_cannot_run(tmp_path: Path, arguments: list[str], problem: str) -> None:
    ended = amends("run", *arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert problem in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / ".amends").exists()


def test_run_refuses_a_corrupt_file(tmp_path: Path) -> None:
    (tmp_path / ".amends").mkdir()
    (tmp_path / ".amends" / "amends.db").write_bytes(b"no database" * 1000)
    ended = amends("run", SHOP, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (6, "")
    assert "Restore it from a backup, or move it away" in ended.stderr
    assert "Traceback" not in ended.stderr


# a participant that says when it has work in hand, and waits there for a word through a pipe
SLOW = """
import asyncio
from amends.contracts import Command
from amends.coordinator import Saga, step
from amends.participants import Participant

class Pack(Command[None], service="packing"):
    pass

class Order(Saga):
    @step(pivot=True)
    def pack(self) -> Pack:
        return Pack()

packing = Participant("packing")

@packing.action
async def pack(command: Pack) -> None:
    print("packing", flush=True)
    await asyncio.to_thread(lambda: open("go").read())
    print("packed", flush=True)
"""


def test_an_inbox_that_a_participant_names_comes_before_that_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(
        "from amends.participants import Participant\n"
        "from slow import Pack\n"
        'packing = Participant("packing", inbox="sqlite:named.db")\n'
        "@packing.action\ndef pack(command: Pack) -> None:\n    pass\n"
    )
    (tmp_path / "slow.py").write_text(SLOW)
    with running("named", cwd=tmp_path, AMENDS_INBOX="sqlite:other.db"):
        assert (tmp_path / "named.db").exists()
        assert not (tmp_path / "other.db").exists()


@pytest.fixture
def packing(tmp_path: Path) -> Iterator[Process]:
    """A process with one action in hand, in `tmp_path`."""
    (tmp_path / "slow.py").write_text(SLOW)
    os.mkfifo(tmp_path / "go")
    with running("slow", cwd=tmp_path) as process:
        assert amends("start", "order", "--id", "order-1", cwd=tmp_path).returncode == 0
        process.wait_for("packing")
        yield process


def test_work_in_hand_is_finished_before_the_process_ends(tmp_path: Path, packing: Process) -> None:
    packing.signal(signal.SIGTERM)
    packing.wait_for("Stopping")
    (tmp_path / "go").write_text("")
    assert packing.wait() == 0
    assert packing.lines[-2:] == ["packed", "Stopped"]
    with running("slow", cwd=tmp_path) as again:
        assert amends("wait", "order-1", "--within", "30", cwd=tmp_path).returncode == 0
        again.stop()
        assert "packing" not in again.lines


def test_a_second_signal_ends_the_process_at_once(packing: Process) -> None:
    packing.signal(signal.SIGTERM)
    packing.wait_for("Stopping")
    packing.signal(signal.SIGINT)
    assert packing.wait() == 128 + signal.SIGINT
    assert packing.lines[-1] == "amends: stopped at once; what was in hand is done again by the next run"


def test_colours_are_for_terminals_that_want_them(tmp_path: Path) -> None:
    with running(SHOP, cwd=tmp_path):
        start(tmp_path, "order-1", "--wait")
        plain = amends("list", cwd=tmp_path).stdout
        assert "\x1b" not in plain
        assert "\x1b[32m" in _on_terminal(["list"], tmp_path, TERM="xterm-256color")
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", _on_terminal(["list"], tmp_path, TERM="xterm", NO_COLOR="1"))


def _on_terminal(arguments: list[str], cwd: Path, **variables: str) -> str:
    leader, follower = pty.openpty()
    ended = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(COLUMNS="120", **variables),
        stdout=follower,
        timeout=60,
        check=True,
    )
    assert ended.returncode == 0
    os.close(follower)
    said = b""
    # reading the end of a closed terminal is an error on Linux
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        said += part
    os.close(leader)
    return said.decode()


def test_a_reader_that_goes_away_is_no_error_worth_a_trace(tmp_path: Path) -> None:
    with running(SHOP, cwd=tmp_path):
        start(tmp_path, "order-1", "--wait")
        reader, writer = os.pipe()
        os.close(reader)
        ended = subprocess.run(
            [*COMMAND, "journal", "order-1"],
            cwd=tmp_path, env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")
