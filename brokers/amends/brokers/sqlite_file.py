"""One SQLite file, written by group commit: what the embedded broker, store and inbox stand on.

Jobs are plain functions of a connection. Those that wait together run in one transaction; the commit, which waits for the
disk, happens in a thread, so that the event loop goes on and collects the jobs of the next transaction meanwhile. The
statements themselves run on the loop: a thread would fight it for the interpreter lock at every row (measured: 80 times
slower under load).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar, cast
from weakref import WeakValueDictionary

from amends.contracts import AmendsError, TerminalError, TransientError

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

BUSY_TIMEOUT_S: Final = 10.0
_MOST_JOBS: Final = 512


class FileUnavailable(TransientError):
    """The file cannot be read or written now: locked for too long, disk full, no permission."""


class FileCorrupt(TerminalError):
    """The file is no database, or a damaged one. Nothing was changed; restore it from a backup or move it away."""


def translate(error: sqlite3.Error, path: Path) -> AmendsError:
    """The error of SQLite in amends' terms, with what to do about it."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return FileCorrupt(f"{path} is damaged or no amends database ({error}). Restore it from a backup, or move it away")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return FileUnavailable(
            f"{path} has been locked by another program for {BUSY_TIMEOUT_S:.0f} s. Find what holds it (`fuser {path}`)"
        )
    if code == sqlite3.SQLITE_FULL:
        return FileUnavailable(f"the disk of {path} is full. Make room; work goes on by itself")
    return FileUnavailable(f"{path} cannot be used: {error}")


class _Pending:
    __slots__ = ("after", "future", "job")

    def __init__(self, job: Job[Any], future: asyncio.Future[Any], after: Callable[[Any], None] | None) -> None:
        self.job, self.future, self.after = job, future, after


class SqliteFile:
    """A database file as one event loop uses it. Get it with `SqliteFile.open`, which shares it within the loop.

    WAL, `synchronous=FULL`: what `write` reported survives a power cut. Several processes may use one file; they wait
    for each other's write lock.
    """

    _open: ClassVar[WeakValueDictionary[tuple[str, int], SqliteFile]] = WeakValueDictionary()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._users = 0
        self._pending: list[_Pending] = []
        self._flusher: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"amends-{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect()
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._reader = self._connect()
        except sqlite3.Error as error:
            self._thread.shutdown(wait=False)
            raise translate(error, path) from error
        except OSError as error:
            self._thread.shutdown(wait=False)
            raise FileUnavailable(f"{path.parent} cannot be made: {error.strerror}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=4000")
        connection.execute("PRAGMA cache_size=-65536")
        connection.execute("PRAGMA temp_store=MEMORY")
        return connection

    @classmethod
    def open(cls, path: str | Path, schema: Iterable[str] = ()) -> SqliteFile:
        """The file at `path`, made when it is not there, with the tables of `schema` (`CREATE … IF NOT EXISTS`).

        Within one event loop, all who open a path share one writer, so that their jobs share transactions. Each calls
        `close` once. Raises `FileCorrupt` or `FileUnavailable`.
        """
        resolved = Path(path).expanduser().resolve()
        key = (str(resolved), id(asyncio.get_running_loop()))
        file = cls._open.get(key)
        if file is None or file._users == 0:
            file = cls(resolved)
            cls._open[key] = file
        file._users += 1
        try:
            if missing := [statement for statement in schema if not file._has(statement)]:
                with file._exclusive():
                    for statement in missing:
                        file._writer.execute(statement)
        except sqlite3.Error as error:
            file._users -= 1
            raise translate(error, resolved) from error
        return file

    def _has(self, statement: str) -> bool:
        name = statement.split(" IF NOT EXISTS ")[1].split()[0].split("(")[0]
        return self._reader.execute("SELECT 1 FROM sqlite_master WHERE name=?", (name,)).fetchone() is not None

    def _exclusive(self) -> _Exclusive:
        if self._flusher is not None:
            # a commit may be under way on the writer's connection; a connection of its own waits for it
            return _Exclusive(self._connect(), own=True)
        return _Exclusive(self._writer, own=False)

    def read(self, job: Job[T]) -> T:
        """Run a job that only reads, at once. It sees everything that was committed."""
        try:
            return job(self._reader)
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def write(self, job: Job[T], after: Callable[[T], None] | None = None) -> asyncio.Future[T]:
        """Run a job in the next transaction; the future is done when that is on disk.

        `after` is called with the result as soon as it is, before anyone who awaits. A job that raises is rolled back alone:
        it must not keep what it did anywhere but in the database, since it may be run again.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(job, future, cast("Callable[[Any], None] | None", after)))
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        return future

    async def _flush(self) -> None:
        try:
            while self._pending:
                batch, self._pending = self._pending[:_MOST_JOBS], self._pending[_MOST_JOBS:]
                await self._transact(batch)
        finally:
            self._flusher = None

    async def _transact(self, batch: list[_Pending]) -> None:
        try:
            await self._begin()
            try:
                results = [pending.job(self._writer) for pending in batch]
            except BaseException as error:
                self._writer.execute("ROLLBACK")
                if len(batch) == 1:
                    raise error
                for pending in batch:
                    await self._transact([pending])
                return
            await self._on_thread(self._commit)
        except sqlite3.Error as error:
            _fail(batch, translate(error, self.path))
        except Exception as error:
            _fail(batch, error)
        except BaseException:
            _fail(batch, FileUnavailable(f"{self.path}: interrupted before it was on disk"))
            raise
        else:
            for pending, result in zip(batch, results, strict=True):
                if pending.after is not None:
                    pending.after(result)
                if not pending.future.done():
                    pending.future.set_result(result)

    async def _begin(self) -> None:
        self._writer.execute("PRAGMA busy_timeout=0")
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            self._writer.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
            await self._on_thread(self._writer.execute, "BEGIN IMMEDIATE")

    def _commit(self) -> None:
        try:
            self._writer.execute("COMMIT")
        except sqlite3.Error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    async def _on_thread(self, function: Callable[..., Any], *args: Any) -> None:
        # shielded: a cancelled waiter must not leave a transaction open behind itself
        running = asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
        await asyncio.shield(running)

    async def close(self) -> None:
        """Let go of the file. The last one out waits for what is being written and closes it."""
        self._users -= 1
        if self._users > 0:
            return
        while self._flusher is not None:
            await asyncio.wait([self._flusher])
        self._thread.shutdown()
        self._reader.close()
        self._writer.close()


class _Exclusive:
    """A transaction of its own, for the schema."""

    def __init__(self, connection: sqlite3.Connection, *, own: bool) -> None:
        self._connection, self._own = connection, own

    def __enter__(self) -> None:
        self._connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._connection.execute("ROLLBACK" if error else "COMMIT")
        if self._own:
            self._connection.close()


def _fail(batch: list[_Pending], error: BaseException) -> None:
    for pending in batch:
        if not pending.future.done():
            pending.future.set_exception(error)
