"""Patient jobs: what nobody waits for rides along with what is urgent."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from amends.brokers.sqlite_file import Job, SqliteFile

SCHEMA = ("CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, text TEXT)",)


def note(text: str) -> Job[None]:
    def job(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO note (text) VALUES (?)", (text,))

    return job


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.db"


@pytest.fixture
async def file(path: Path) -> AsyncIterator[SqliteFile]:
    file = SqliteFile.open(path, SCHEMA)
    yield file
    await file.close()


def statements(file: SqliteFile) -> list[str]:
    seen: list[str] = []
    file._writer.set_trace_callback(seen.append)
    return seen


def notes(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [text for (text,) in db.execute("SELECT text FROM note ORDER BY id")]


async def test_patient_job_rides_along_with_the_next_urgent_one_in_its_order(file: SqliteFile, path: Path) -> None:
    seen = statements(file)
    patient = file.write(note("patient"), patient=True)
    await file.write(note("urgent"))
    assert patient.done()
    assert seen.count("COMMIT") == 1
    assert notes(path) == ["patient", "urgent"]


async def test_patient_job_that_nothing_comes_after_is_done_by_itself(file: SqliteFile, path: Path) -> None:
    await file.write(note("patient"), patient=True)
    assert notes(path) == ["patient"]


async def test_patient_job_that_comes_during_a_commit_waits_for_the_urgent_one_behind_it(file: SqliteFile) -> None:
    seen = statements(file)
    patient: list[asyncio.Future[None]] = []
    # called when the first commit is through, before the one who awaits it goes on
    await file.write(note("first"), lambda _: patient.append(file.write(note("patient"), patient=True)))
    await file.write(note("second"))
    assert patient[0].done()
    assert seen.count("COMMIT") == 2


async def test_closing_does_what_patient_jobs_ask_for(path: Path) -> None:
    file = SqliteFile.open(path, SCHEMA)
    patient = file.write(note("patient"), patient=True)
    await file.close()
    assert patient.done()
    assert notes(path) == ["patient"]
