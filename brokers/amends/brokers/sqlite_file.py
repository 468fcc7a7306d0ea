"""One SQLite file, written by group commit: what the embedded broker, store and inbox stand on.

Jobs are plain functions of a connection. Those that wait together run in one transaction; the commit, which waits for
the disk, happens in a thread, so that the event loop goes on and collects the jobs of the next transaction meanwhile.
The statements themselves run on the loop: a thread would fight it for the interpreter lock at every row (measured: 80
times slower under load). The loop never waits for a lock: while another process writes, `BEGIN` is tried again every
millisecond. No task is involved, so that cancelling tasks, as at the end of a program, leaves no transaction half way.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar, cast
from weakref import WeakValueDictionary

from amends.contracts import AmendsError, TerminalError, TransientError

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

BUSY_TIMEOUT_S: Final = 10.0
_READER_TIMEOUT_S: Final = 1.0
"""Readers wait only for a file that is being recovered after a crash, or closed by its last user."""
_RETRY_LOCK_S: Final = 0.001
_GAP_S: Final = 0.002
_CROWDED_S: Final = 0.1
_PATIENCE_S: Final = 0.01
_RUN_S: Final = 0.02
"""How long jobs may keep the loop before their transaction is committed."""

_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LOCKED: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_UNUSABLE: Final = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
}


class FileUnavailable(TransientError):
    """The file cannot be read or written now: locked for too long, disk full, no permission."""


class FileCorrupt(TerminalError):
    """The file is no database, or a damaged one. Nothing was changed; restore it from a backup or move it away."""


def _code(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def translate(error: sqlite3.Error, path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> AmendsError | None:
    """An error about the file in amends' terms, with what to do about it; None for one that is about the statement."""
    code = _code(error)
    if code in _DAMAGED:
        return FileCorrupt(
            f"{path} is damaged or no amends database ({error}). Restore it from a backup, or move it away"
        )
    if code in _LOCKED:
        return FileUnavailable(
            f"{path} has been locked by another program for {busy_timeout_s:g} s. Find what holds it (`fuser {path}`)"
        )
    if code == sqlite3.SQLITE_FULL:
        return FileUnavailable(f"the disk of {path} is full. Make room; work goes on by itself")
    if code in _UNUSABLE:
        return FileUnavailable(f"{path} cannot be used: {error}")
    return None


class _Pending:
    __slots__ = ("after", "future", "job", "patient", "result", "undone")

    def __init__(
        self,
        job: Job[Any],
        future: asyncio.Future[Any],
        after: Callable[[Any], None] | None,
        undone: Callable[[], None] | None,
        patient: bool,
    ) -> None:
        self.job, self.future, self.after, self.undone, self.patient = job, future, after, undone, patient
        self.result: Any = None

    def undo(self) -> None:
        if self.undone is not None:
            self.undone()

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def succeed(self) -> None:
        try:
            if self.after is not None:
                self.after(self.result)
        except Exception as error:
            self.fail(error)
        if not self.future.done():
            self.future.set_result(self.result)


class SqliteFile:
    """A database file as one event loop uses it. Get it with `SqliteFile.open`, which shares it within the loop.

    WAL, `synchronous=FULL`: what `write` reported survives a power cut. Several processes may use one file; they wait
    for each other's write lock, and one that writes all the time leaves gaps for the others. A process that is stopped
    (SIGSTOP) in the middle of a commit keeps the lock until it goes on or dies.
    """

    _open: ClassVar[WeakValueDictionary[tuple[str, int], SqliteFile]] = WeakValueDictionary()

    def __init__(self, path: Path, schema: Iterable[str], busy_timeout_s: float) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._loop = asyncio.get_running_loop()
        self._users = 0
        self._pending: list[_Pending] = []
        self._busy = False
        self._idle: list[asyncio.Future[None]] = []
        self._patience: asyncio.TimerHandle | None = None
        self._locked_since: float | None = None
        self._crowded_until = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"amends-{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileUnavailable(f"{path.parent} cannot be made: {error.strerror}") from error
        with ExitStack() as opened:
            self._writer = opened.enter_context(closing(self._patiently(self._connect)))
            self._writer.execute("PRAGMA busy_timeout=0")
            self._data_version = self._data_version_now()
            self._reader = opened.enter_context(closing(self._patiently(self._connect)))
            self._make(schema)
            opened.pop_all()

    def _data_version_now(self) -> int:
        """A number that changes when another connection commits."""
        (version,) = self._writer.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_READER_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode != "wal":
                raise FileUnavailable(
                    f"{self.path} cannot be shared: its file system has no shared memory. Put it on a local disk"
                )
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_autocheckpoint=4000")
            connection.execute("PRAGMA cache_size=-65536")
            connection.execute("PRAGMA temp_store=MEMORY")
        except BaseException:
            connection.close()
            raise
        return connection

    def _patiently(self, action: Callable[[], T]) -> T:
        """Do something while opening, again while others hold the file: SQLite itself does not wait for every lock."""
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if _code(error) not in _LOCKED or time.monotonic() >= deadline:
                    raise
            time.sleep(0.005)

    def _translated(self, error: BaseException) -> BaseException:
        if not isinstance(error, sqlite3.Error):
            return error
        return translate(error, self.path, self._busy_timeout_s) or error

    @classmethod
    def open(
        cls, path: str | Path, schema: Iterable[str] = (), *, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> SqliteFile:
        """The file at `path`, made when it is not there, with the tables of `schema` (`CREATE … IF NOT EXISTS`).

        Within one event loop, all who open a path share one writer, so that their jobs share transactions (and the
        `busy_timeout_s` of the first). Each calls `close` once. Raises `FileCorrupt` or `FileUnavailable`.
        """
        resolved = Path(path).expanduser().resolve()
        key = (str(resolved), id(asyncio.get_running_loop()))
        file = cls._open.get(key)
        try:
            if file is None or file._users == 0 or file._loop is not asyncio.get_running_loop():
                file = cls(resolved, schema, busy_timeout_s)
            else:
                file._make(schema)
        except sqlite3.Error as error:
            if (translated := translate(error, resolved, busy_timeout_s)) is None:
                raise
            raise translated from error
        cls._open[key] = file
        file._users += 1
        return file

    def _make(self, schema: Iterable[str]) -> None:
        missing = [statement for statement in schema if not self._has(statement)]
        if not missing:
            return
        # a connection of its own, since a commit may be under way on the writer's
        with closing(self._connect()) as connection:
            self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            for statement in missing:
                connection.execute(statement)
            connection.execute("COMMIT")

    def _has(self, statement: str) -> bool:
        name = statement.split(" IF NOT EXISTS ")[1].split()[0].split("(")[0]
        return self._reader.execute("SELECT 1 FROM sqlite_master WHERE name=?", (name,)).fetchone() is not None

    def read(self, job: Job[T]) -> T:
        """Run a job that only reads, at once, on one consistent view of all that was committed."""
        try:
            self._reader.execute("BEGIN")
            try:
                return job(self._reader)
            finally:
                self._reader.execute("ROLLBACK")
        except sqlite3.Error as error:
            if (translated := self._translated(error)) is error:
                raise
            raise translated from error

    def write(
        self,
        job: Job[T],
        after: Callable[[T], None] | None = None,
        undone: Callable[[], None] | None = None,
        *,
        patient: bool = False,
    ) -> asyncio.Future[T]:
        """Run a job in the next transaction; the future is done when that is on disk.

        `after` is called with the result as soon as it is, before anyone who awaits. A job that raises is rolled back
        alone. Jobs may be run again when another one of their transaction raised, so that a job must keep what it did
        nowhere but in the database, unless `undone` takes it back: that is called each time the job was rolled back.
        Cancelling the future does not stop the job. A `patient` job waits a moment for others to share a transaction
        with: for what nothing goes on from, and which would only keep the disk from what is urgent.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._users == 0:
            future.set_exception(FileUnavailable(f"{self.path} is closed here. Open it again"))
            return future
        self._pending.append(_Pending(job, future, cast("Callable[[Any], None] | None", after), undone, patient))
        if not self._busy:
            self._start_patiently() if patient else self._start()
        return future

    def _start(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._transact)

    def _start_patiently(self) -> None:
        if self._patience is None:
            self._patience = self._loop.call_later(_PATIENCE_S, self._start)

    def _transact(self) -> None:
        try:
            if not self._begin():
                self._loop.call_later(_RETRY_LOCK_S, self._transact)
                return
            batch = self._run()
        except sqlite3.Error as error:
            self._abort(self._translated(error))
            return
        except BaseException:
            self._abort(FileUnavailable(f"{self.path}: interrupted before it was on disk"))
            raise
        if not batch:
            self._next()
            return
        self._thread.submit(self._commit).add_done_callback(lambda done: self._back_on_loop(batch, done))

    def _begin(self) -> bool:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if _code(error) not in _LOCKED:
                raise
            now = time.monotonic()
            self._locked_since = self._locked_since or now
            if now - self._locked_since >= self._busy_timeout_s:
                raise
            return False
        self._locked_since = None
        if (version := self._data_version_now()) != self._data_version:
            self._data_version = version
            self._crowded_until = time.monotonic() + _CROWDED_S
        return True

    def _run(self) -> list[_Pending]:
        """Run what is pending, as much as fits. When a job raises, all is rolled back, and the others stay pending."""
        batch: list[_Pending] = []
        end = time.monotonic() + _RUN_S
        for item in self._pending:
            batch.append(item)
            try:
                item.result = item.job(self._writer)
            except BaseException as error:
                self._rollback(batch)
                if not isinstance(error, Exception) or self._translated(error) is not error:
                    raise
                self._pending.remove(item)
                item.fail(error)
                return []
            if time.monotonic() >= end:
                break
        del self._pending[: len(batch)]
        return batch

    def _rollback(self, batch: Iterable[_Pending]) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        for item in batch:
            item.undo()

    def _abort(self, error: BaseException) -> None:
        """Give up on all that is pending: the trouble is with the file, not with a job."""
        # an open transaction would keep the write lock from everybody
        with suppress(sqlite3.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        failed, self._pending = self._pending, []
        for item in failed:
            item.fail(error)
        self._locked_since = None
        self._next()

    def _commit(self) -> None:
        try:
            self._writer.execute("COMMIT")
        except sqlite3.Error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def _back_on_loop(self, batch: list[_Pending], done: Future[None]) -> None:
        # raises when the loop was closed meanwhile, and with it everyone who waited
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._committed, batch, done)

    def _committed(self, batch: list[_Pending], done: Future[None]) -> None:
        error = done.exception()
        for item in batch:
            if error is None:
                item.succeed()
            else:
                item.undo()
                item.fail(self._translated(error))
        self._next()

    def _next(self) -> None:
        if any(not item.patient for item in self._pending) or (self._pending and self._users == 0):
            # not at once: those who were just told that their jobs are done may have more for this transaction
            if time.monotonic() < self._crowded_until:
                self._loop.call_later(_GAP_S, self._transact)
            else:
                self._loop.call_soon(self._transact)
            return
        self._busy = False
        if self._pending:
            self._start_patiently()
            return
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        self._idle.clear()

    async def close(self) -> None:
        """Let go of the file. The last one out waits for what is being written and closes it."""
        self._users -= 1
        if self._users > 0:
            return
        while self._busy or self._pending:
            self._start()
            idle: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(idle)
            await idle
        self._reader.close()
        # the last connection copies the log into the file, which takes a while
        closed = self._thread.submit(self._writer.close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closed))
