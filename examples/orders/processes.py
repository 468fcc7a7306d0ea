"""The processes of the example: `amends run` for the services and two coordinators. They can be killed and paused."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .home import VARIABLE, broker_url, plain_inbox_url, store_url

T = TypeVar("T")

PACKAGE = __package__
ROOT = Path(__file__).parents[PACKAGE.count(".") + 1]
"""The folder that the package of the example is imported from."""

STOP_S = 15.0
_AMENDS = "from amends.coordinator.cli import main; main()"
"""The command `amends`, in this very Python."""


class Role(NamedTuple):
    """One process: its name, the module it runs, and which kind it belongs to when something is to be killed."""

    name: str
    module: str
    kind: str

    @property
    def service(self) -> str:
        """What it runs, which its module is named after."""
        return self.module.rpartition(".")[2]


KINDS = ("participants", "coordinator")
SERVICES = ("inventory", "payments", "shipping")


def roles(replicas: int = 1) -> tuple[Role, ...]:
    """Each service as often as `replicas` says, and two coordinators."""
    names = [f"-{number}" for number in range(1, replicas + 1)] if replicas > 1 else [""]
    return (
        *(Role(f"{service}{name}", f"{PACKAGE}.{service}", "participants") for service in SERVICES for name in names),
        Role("coordinator-1", f"{PACKAGE}.saga", "coordinator"),
        Role("coordinator-2", f"{PACKAGE}.saga", "coordinator"),
    )


class ProcessEnded(Exception):
    """A process ended that nobody had stopped. `log` is where it says why."""

    def __init__(self, role: Role, code: int, log: Path) -> None:
        self.role, self.code, self.log = role, code, log
        lines = log.read_text("utf-8", "replace").strip().splitlines()[-15:]
        super().__init__(f"{role.name} ended by itself with code {code}; the end of {log}:\n" + "\n".join(lines))


class Processes:
    """All of them share the broker and the store, and the files in `home`. Their output goes to `home/logs`."""

    def __init__(self, home: Path, roles: Sequence[Role]) -> None:
        self.roles = roles
        self._home = home
        self._logs = home / "logs"
        self._running: dict[Role, asyncio.subprocess.Process] = {}
        self._log_starts: dict[Role, int] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[ProcessEnded] = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start all; at the end, or on any error, stop all."""
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            await self.start(self.roles)
            yield
        finally:
            await self._stop()

    async def while_alive(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, unless a process ends by itself meanwhile. Raises `ProcessEnded` then."""
        task = asyncio.create_task(work)
        either: set[asyncio.Future[Any]] = {task, self._ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise self._ended.result()
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def kill(self, kinds: Sequence[str]) -> str:
        """`kill -9` every process of these kinds, all at once, and start them again. Says what was killed."""
        victims = [role for role in self.roles if role.kind in kinds]
        killed = ", ".join(f"{role.name} ({self._running[role].pid})" for role in victims)
        await self.end(victims, signal.SIGKILL)
        await self.start(victims)
        return killed

    async def start(self, roles: Sequence[Role]) -> None:
        """Start the processes of these roles, which do not run."""
        for role in roles:
            await self._start(role)

    async def end(self, roles: Sequence[Role], number: signal.Signals) -> None:
        """End these by a signal, all at once, and wait until they are gone."""
        ending = [self._running.pop(role) for role in roles]
        for process in ending:
            process.send_signal(number)
        for process in ending:
            await process.wait()

    def pause(self, role: Role) -> None:
        """Freeze a process where it stands."""
        self._running[role].send_signal(signal.SIGSTOP)

    def resume(self, role: Role) -> None:
        """Let it go on, as if nothing had been."""
        self._running[role].send_signal(signal.SIGCONT)

    def said(self, role: Role) -> str:
        """What the newest process of this role has said so far."""
        return self._log(role).read_bytes()[self._log_starts[role] :].decode("utf-8", "replace")

    def _log(self, role: Role) -> Path:
        return self._logs / f"{role.name}.log"

    async def _start(self, role: Role) -> None:
        log = self._log(role)
        with log.open("ab") as output:
            self._log_starts[role] = output.tell()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-c", _AMENDS, "run", role.module),
                *("--broker", broker_url(self._home), "--store", store_url(self._home)),
                *(("--inbox", inbox) if (inbox := plain_inbox_url(self._home, role.service)) else ()),
                cwd=ROOT,
                env=_surroundings(self._home),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C is for us: we stop them ourselves, in order
                start_new_session=True,
            )
        self._running[role] = process
        watch = asyncio.create_task(self._watch(role, process, log))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _watch(self, role: Role, process: asyncio.subprocess.Process, log: Path) -> None:
        code = await process.wait()
        if self._running.get(role) is process and not self._ended.done():
            self._ended.set_result(ProcessEnded(role, code, log))

    async def _stop(self) -> None:
        running, self._running = self._running, {}
        for process in running.values():
            with suppress(ProcessLookupError):
                process.terminate()
                # one that is paused hears it, too
                process.send_signal(signal.SIGCONT)
        waits = [asyncio.create_task(process.wait()) for process in running.values()]
        try:
            if waits:
                await asyncio.wait(waits, timeout=STOP_S)
        finally:
            for process in running.values():
                if process.returncode is None:
                    process.kill()
            await asyncio.gather(*waits, *self._watches, return_exceptions=True)


def _surroundings(home: Path) -> dict[str, str]:
    """The variables of a process: ours, but for the settings of amends, which are given as arguments."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AMENDS_")}
    path = os.pathsep.join(filter(None, (str(ROOT), ours.get("PYTHONPATH"))))
    return {**ours, VARIABLE: str(home), "PYTHONPATH": path}
