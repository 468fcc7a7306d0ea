"""`SqliteFile`: group commit, what happens to jobs that fail, and to the file in bad circumstances."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from amends.brokers.sqlite_file import FileCorrupt, FileUnavailable, SqliteFile

SCHEMA = ("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",)
GUARD_S = 20.0


def note(text: str) -> Callable[[sqlite3.Connection], int]:
    def job(db: sqlite3.Connection) -> int:
        return db.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid or 0

    return job


def texts(db: sqlite3.Connection) -> list[str]:
    return [text for (text,) in db.execute("SELECT text FROM notes ORDER BY id")]


def on_disk(path: Path) -> list[str]:
    """As a program sees it that knows nothing of this one."""
    with closing(sqlite3.connect(path)) as db:
        return texts(db)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "notes.db"


@pytest.fixture
async def file(path: Path) -> AsyncIterator[SqliteFile]:
    file = SqliteFile.open(path, SCHEMA, busy_timeout_s=0.2)
    yield file
    await file.close()


def statements(file: SqliteFile) -> list[str]:
    seen: list[str] = []
    file._writer.set_trace_callback(seen.append)
    return seen


# group commit


async def test_jobs_that_wait_together_share_one_transaction(file: SqliteFile) -> None:
    seen = statements(file)
    numbers = await asyncio.gather(*(file.write(note(str(n))) for n in range(100)))
    assert numbers == list(range(1, 101))
    assert seen.count("COMMIT") == 1


async def test_jobs_that_come_during_a_commit_share_the_next_one(file: SqliteFile) -> None:
    seen = statements(file)

    async def writes() -> None:
        for _ in range(10):
            await file.write(lambda db: None)

    await asyncio.gather(*(writes() for _ in range(50)))
    assert seen.count("COMMIT") == 10


async def test_a_job_is_on_disk_when_its_after_is_called_and_that_is_before_those_who_wait(
    file: SqliteFile, path: Path
) -> None:
    events: list[object] = []

    async def wait() -> None:
        events.append(await file.write(note("a"), lambda number: events.append((number, on_disk(path)))))

    await wait()
    assert events == [(1, ["a"]), 1]


async def test_jobs_run_in_the_order_in_which_they_came(file: SqliteFile) -> None:
    await asyncio.gather(*(file.write(note(str(n))) for n in range(20)))
    assert file.read(texts) == [str(n) for n in range(20)]


# jobs that fail


async def test_a_job_that_raises_is_rolled_back_alone(file: SqliteFile, path: Path) -> None:
    def bad(db: sqlite3.Connection) -> None:
        note("bad")(db)
        raise ValueError("no")

    done = await asyncio.gather(
        file.write(note("a")), file.write(bad), file.write(note("b")), file.write(bad), return_exceptions=True
    )
    assert [type(result) for result in done] == [int, ValueError, int, ValueError]
    assert on_disk(path) == ["a", "b"]


async def test_an_error_about_a_statement_is_raised_as_it_is(file: SqliteFile, path: Path) -> None:
    done = await asyncio.gather(
        file.write(note("a")),
        file.write(note("a")),
        file.write(lambda db: db.execute("SELECT * FROM nowhere")),
        file.write(note("b")),
        return_exceptions=True,
    )
    assert [type(result) for result in done] == [int, sqlite3.IntegrityError, sqlite3.OperationalError, int]
    assert on_disk(path) == ["a", "b"]
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        file.read(lambda db: db.execute("SELECT * FROM nowhere"))


async def test_what_was_rolled_back_is_undone_each_time_before_it_is_run_again(file: SqliteFile) -> None:
    log: list[str] = []

    def job(name: str, *, fail: bool = False) -> asyncio.Future[None]:
        def run(db: sqlite3.Connection) -> None:
            log.append(f"run {name}")
            if fail:
                raise ValueError(name)

        return file.write(run, lambda _: log.append(f"after {name}"), lambda: log.append(f"undone {name}"))

    await asyncio.gather(job("a"), job("b", fail=True), job("c"), return_exceptions=True)
    first, second = log[:4], log[4:]
    assert first == ["run a", "run b", "undone a", "undone b"]
    assert second == ["run a", "run c", "after a", "after c"]


async def test_an_after_that_raises_is_told_to_its_own_waiter_only(file: SqliteFile, path: Path) -> None:
    def after(number: int) -> None:
        raise ValueError("no")

    done = await asyncio.gather(file.write(note("a"), after), file.write(note("b")), return_exceptions=True)
    assert [type(result) for result in done] == [ValueError, int]
    assert on_disk(path) == ["a", "b"]


# cancellation


async def test_cancelling_a_waiter_stops_neither_its_job_nor_the_others(file: SqliteFile, path: Path) -> None:
    async def wait(text: str) -> int:
        return await file.write(note(text))

    first, second = asyncio.create_task(wait("a")), asyncio.create_task(wait("b"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 2
    assert first.cancelled()
    assert on_disk(path) == ["a", "b"]


def test_a_program_that_is_cancelled_writes_what_its_tasks_still_ask_for(path: Path) -> None:
    async def main() -> None:
        file = SqliteFile.open(path, SCHEMA)
        started = asyncio.Event()

        async def service() -> None:
            try:
                unfinished = file.write(note("before"))
                started.set()
                await asyncio.Event().wait()
            finally:
                await file.write(note("while it ends"))
                assert unfinished.done()
                await file.close()

        services.append(asyncio.create_task(service()))
        await started.wait()

    services: list[asyncio.Task[None]] = []
    asyncio.run(main())
    assert services[0].cancelled()
    assert on_disk(path) == ["before", "while it ends"]


@pytest.mark.parametrize("turns", range(4))
def test_a_loop_that_is_closed_with_work_in_flight_leaves_the_file_usable(path: Path, turns: int) -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        file = SqliteFile.open(path, SCHEMA)
        file.write(note("in flight"))
        for _ in range(turns):
            await asyncio.sleep(0)

    loop.run_until_complete(begin())
    loop.close()

    async def go_on() -> None:
        file = SqliteFile.open(path, SCHEMA)
        await file.write(note("after"))
        await file.close()

    asyncio.run(go_on())
    assert on_disk(path)[-1] == "after"
    gc.collect()


# opening and closing


async def test_all_who_open_a_file_in_one_loop_share_it_until_the_last_one_closes_it(path: Path) -> None:
    one, two = SqliteFile.open(path, SCHEMA), SqliteFile.open(f"{path.parent}/../folder/{path.name}")
    assert one is two
    await one.close()
    await two.write(note("a"))
    closing_ = [two.write(note(str(n))) for n in range(10)]
    await two.close()
    assert all(done.done() and done.exception() is None for done in closing_)
    with pytest.raises(FileUnavailable, match="is closed here"):
        await two.write(note("too late"))
    three = SqliteFile.open(path)
    assert three is not one
    assert len(three.read(texts)) == 11
    await three.close()


async def test_tables_that_are_missing_are_made_also_while_others_write(file: SqliteFile, path: Path) -> None:
    writing = file.write(note("a"))
    await asyncio.sleep(0)
    same = SqliteFile.open(path, [*SCHEMA, "CREATE TABLE IF NOT EXISTS more (id INTEGER PRIMARY KEY)"])
    await same.write(lambda db: db.execute("INSERT INTO more VALUES (7)") and None)
    assert same.read(lambda db: db.execute("SELECT id FROM more").fetchall()) == [(7,)]
    await writing
    await same.close()


async def test_a_read_sees_what_was_committed_and_one_moment_only(file: SqliteFile, path: Path) -> None:
    await file.write(note("a"))

    def read(db: sqlite3.Connection) -> tuple[list[str], list[str]]:
        before = texts(db)
        with closing(sqlite3.connect(path)) as other:
            note("b")(other)
            other.commit()
        return before, texts(db)

    assert file.read(read) == (["a"], ["a"])
    assert file.read(texts) == ["a", "b"]


# trouble with the file


def test_a_file_that_is_no_database_is_left_as_it_is(path: Path) -> None:
    async def open_it() -> None:
        SqliteFile.open(path, SCHEMA)

    path.parent.mkdir()
    before = b"These are my holiday pictures, and they are dear to me. " * 100
    path.write_bytes(before)
    with pytest.raises(FileCorrupt, match=r"notes\.db is damaged or no amends database .* move it away"):
        asyncio.run(open_it())
    assert path.read_bytes() == before


async def test_a_folder_that_cannot_be_made_is_named(path: Path) -> None:
    path.parent.write_bytes(b"")
    with pytest.raises(FileUnavailable, match="folder cannot be made"):
        SqliteFile.open(path, SCHEMA)
    with pytest.raises(FileUnavailable, match=r"cannot be used: unable to open"):
        SqliteFile.open(path.parent.parent)


async def test_a_lock_is_waited_for_without_stopping_the_loop(file: SqliteFile, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = file.write(note("a"))
        # were the loop to wait for the lock, it would not come to this
        asyncio.get_running_loop().call_later(0.02, other.execute, "ROLLBACK")
        async with asyncio.timeout(GUARD_S):
            assert await waiting == 1


async def test_a_lock_that_lasts_too_long_is_told_and_work_goes_on_when_it_is_gone(
    file: SqliteFile, path: Path
) -> None:
    undone: list[str] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        done = await asyncio.gather(
            file.write(note("a"), undone=lambda: undone.append("a")), file.write(note("b")), return_exceptions=True
        )
        for error in done:
            assert isinstance(error, FileUnavailable)
            assert "locked by another program for 0.2 s" in str(error)
            assert f"fuser {path}" in str(error)
        assert file.read(texts) == []
        other.execute("ROLLBACK")
    assert undone == []
    assert await file.write(note("c")) == 1


async def test_a_full_disk_fails_what_was_to_be_written_and_work_goes_on_when_there_is_room(
    file: SqliteFile, path: Path
) -> None:
    undone: list[str] = []
    (pages,) = file._writer.execute("PRAGMA page_count").fetchone()
    file._writer.execute(f"PRAGMA max_page_count={pages}")
    done = await asyncio.gather(
        file.write(note("small"), undone=lambda: undone.append("small")),
        file.write(note("x" * 100_000)),
        return_exceptions=True,
    )
    assert [str(error) for error in done] == [f"the disk of {path} is full. Make room; work goes on by itself"] * 2
    assert undone == ["small"]
    file._writer.execute("PRAGMA max_page_count=1000000")
    await file.write(note("x" * 100_000))
    assert on_disk(path) == ["x" * 100_000]


_COUNT = """
import asyncio, sys
from amends.brokers.sqlite_file import SqliteFile

async def main():
    file = SqliteFile.open(sys.argv[1])
    for _ in range(300):
        await file.write(lambda db: db.execute("UPDATE notes SET text = text + 1 WHERE id = 1") and None)
    await file.close()

asyncio.run(main())
"""


@pytest.mark.slow
async def test_processes_that_write_at_the_same_time_lose_nothing(path: Path) -> None:
    file = SqliteFile.open(path, SCHEMA)
    await file.write(note("0"))
    others = [await asyncio.create_subprocess_exec(sys.executable, "-c", _COUNT, str(path), stderr=PIPE) for _ in "ab"]
    ended = [asyncio.create_task(other.communicate()) for other in others]
    for _ in range(300):
        await file.write(lambda db: db.execute("UPDATE notes SET text = text + 1 WHERE id = 1") and None)
    async with asyncio.timeout(GUARD_S):
        for end in ended:
            _, errors = await end
            assert errors == b""
    assert file.read(texts) == ["900"]
    await file.close()
