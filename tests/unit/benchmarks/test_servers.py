"""The contestants on real servers run to the end, with tiny numbers; what the bare loops repeat is what amends does."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import SERVERS, main, shares
from benchmarks.servers.letters import CLIENT, SERVICE, SHARDS, Letter, envelope_of
from benchmarks.servers.packs import event_of, pack_of, read_pack
from benchmarks.servers.parts import Part, PartFailed
from benchmarks.servers.recording import Recording, names, record
from benchmarks.servers.results import Result, middle_result, tables
from benchmarks.servers.spent import bytes_written, cpu_s
from rich.console import Console

from amends.contracts import Kind, ReplyOutcome
from amends.contracts.packs import read_pack as read_whole_pack

TINY = ("--sagas", "20", "--rounds", "1", "--seconds", "0.2", "--json")


@pytest.fixture(scope="module")
def recording(redis_url: str) -> Recording:
    return asyncio.run(record(f"{redis_url}?namespace=bench-recording"))


def test_recording_has_both_lives_of_an_order(recording: Recording) -> None:
    for life, places in ((recording.shipped, 4), (recording.refused, 6)):
        assert [len(part) for part in (life.arrivals, life.commits)] == [places] * 2
        parts = (life.commands, life.clears, life.claims, life.outcomes)
        assert [len(part) for part in parts] == [places - 1] * 4
        assert life.arrivals[0].kind is Kind.START
    outcomes = [arrival.outcome for arrival in recording.refused.arrivals[1:]]
    done, rejected, undone = ReplyOutcome.DONE, ReplyOutcome.REJECTED, ReplyOutcome.UNDONE
    assert outcomes == [done, done, rejected, undone, undone]


def test_recording_comes_back_from_its_file(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "recording")
    assert Recording.load(tmp_path / "recording") == recording


def test_every_recorded_text_is_about_order_0_so_that_it_can_be_made_another(recording: Recording) -> None:
    id, tag = names(0)
    for life in (recording.shipped, recording.refused):
        for write in (*life.commits, *life.clears, *life.claims, *life.outcomes):
            assert all(tag in key for key in write.keys)
            assert id in write.words[0]
            assert not any(b"order-000009" in word for word in (*write.keys, *write.words))


@pytest.mark.parametrize("letter", [Letter(0, 0, False), Letter(123_456, 11, True)])
def test_letter_is_known_by_its_mark(letter: Letter) -> None:
    assert Letter.read(letter.mark) == letter
    assert len(letter.mark) == 9


def test_pack_of_letters_is_one_that_amends_can_read(recording: Recording) -> None:
    letters = [Letter(7, 0, False), Letter(9, 4, True)]
    body = pack_of([event_of(recording, SERVICE, letter) for letter in letters])
    assert read_pack(body) == letters
    envelopes = [unpacked.envelope for unpacked in read_whole_pack(body)]
    assert [envelope and envelope.subject for envelope in envelopes] == ["order-000007", "order-000009"]
    assert [envelope and envelope.kind for envelope in envelopes] == [Kind.COMMAND, Kind.UNDO]


def test_box_says_which_of_the_recorded_messages_a_letter_is(recording: Recording) -> None:
    kinds = {box: envelope_of(recording, box, Letter(0, 1, True)).kind for box in (SHARDS, SERVICE, CLIENT)}
    assert kinds == {SHARDS: Kind.REPLY, SERVICE: Kind.COMMAND, CLIENT: Kind.NOTICE}


def test_middle_of_results_is_that_of_each_figure() -> None:
    rounds = [Result(rate=rate, cpu_s={"broker": 1 / rate}, note="so") for rate in (4.0, 1.0, 2.0)]
    assert middle_result(rounds) == Result(rate=2.0, cpu_s={"broker": 0.5}, note="so")


def test_tables_tell_what_came_out_and_what_each_part_cost() -> None:
    results = {
        "one": Result(rate=1234, p50_ms=5.4, p99_ms=9.6, cpu_s={"broker": 0.25, "load": 0.5}, bytes={"Redis log": 2e6}),
        "another": Result(rate=10, cpu_s={"PostgreSQL": 3.0}),
    }
    console = Console(width=120, record=True, file=io.StringIO())
    for table in tables(results, {"one": 0.5}):
        console.print(table)
    told = console.export_text()
    assert re.search(r"one +│ +1,234 │ +0\.50 │ +5 │ +10 │ +0\.75 │", told)
    assert re.search(r"another +│ +10 │ +│ +│ +│ +3\.00 │", told)
    assert re.search(r"CPU s per 1,000 sagas ┃ broker ┃ load ┃ PostgreSQL", told)
    assert re.search(r"kB per 1,000 sagas ┃ Redis log", told)
    assert re.search(r"one +│ +2,000 │", told)


def test_shares_are_those_of_the_bare_loop_of_the_same_broker() -> None:
    results = {"Kafka: bare loop": Result(rate=10), "Kafka: amends": Result(rate=5), "RabbitMQ: amends": Result(rate=7)}
    assert shares(results) == {"Kafka: bare loop": 1, "Kafka: amends": 0.5}


def test_part_that_ends_by_itself_is_told_by_its_command() -> None:
    with pytest.raises(PartFailed, match=r"benchmarks\.servers\.product nobody has ended"):
        Part.of("benchmarks.servers.product", "nobody").__enter__()


def test_what_a_process_and_its_children_have_spent_is_known() -> None:
    busy = "import sys; sum(range(5_000_000)); print(flush=True); sys.stdin.readline()"
    shell = ["sh", "-c", f"{sys.executable} -c '{busy}'; true"]
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        # the shell itself has done nothing
        assert cpu_s(process.pid) > 0
        assert bytes_written(process.pid) >= 0
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for group in ("rabbitmq", "kafka") for name in SERVERS[group]])
def test_contestant_does_its_orders_and_tells_what_they_cost(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = name.partition(":")[0].lower()
    monkeypatch.setitem(SERVERS, group, {name: SERVERS[group][name]})
    code = main([group, *TINY])
    told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    if missing := told["left_out"].get(name):
        assert os.environ.get("AMENDS_REQUIRE_SERVICES") != "1", missing
        assert code == 1
        pytest.skip(missing)
    assert code == 0
    result = told["servers"][name]
    assert result["rate"] > 0
    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert set(result["cpu_s"]) == {"broker", "Redis", "coordinator", "participant", "load"}
    assert result["bytes"]["Redis log"] > 0
