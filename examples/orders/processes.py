"""The processes of the example: `amends run` for each service and for two coordinators, which can be killed."""

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


ROLES = (
    Role("inventory", f"{PACKAGE}.inventory", "participants"),
    Role("payments", f"{PACKAGE}.payments", "participants"),
    Role("shipping", f"{PACKAGE}.shipping", "participants"),
    Role("coordinator-1", f"{PACKAGE}.saga", "coordinator"),
    Role("coordinator-2", f"{PACKAGE}.saga", "coordinator"),
)
KINDS = ("participants", "coordinator")


class ProcessEnded(Exception):
    """A process ended that nobody had stopped. `log` is where it says why."""

    def __init__(self, role: Role, code: int, log: Path) -> None:
        self.role, self.code, self.log = role, code, log
        lines = log.read_text("utf-8", "replace").strip().splitlines()[-15:]
        super().__init__(f"{role.name} ended by itself with code {code}; the end of {log}:\n" + "\n".join(lines))


class Processes:
    """All of them share one embedded file in `home`. Their output goes to `home/logs`."""

    def __init__(self, home: Path, roles: Sequence[Role] = ROLES) -> None:
        self._home, self._roles = home, roles
        self._logs = home / "logs"
        self._running: dict[Role, asyncio.subprocess.Process] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[ProcessEnded] = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start all; at the end, or on any error, stop all."""
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            for role in self._roles:
                await self._start(role)
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
        victims = {role: self._running.pop(role) for role in self._roles if role.kind in kinds}
        for process in victims.values():
            process.send_signal(signal.SIGKILL)
        for role, process in victims.items():
            await process.wait()
            await self._start(role)
        return ", ".join(f"{role.name} ({process.pid})" for role, process in victims.items())

    async def _start(self, role: Role) -> None:
        log = self._logs / f"{role.name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-c", _AMENDS, "run", role.module),
                *("--broker", broker_url(self._home), "--store", store_url(self._home)),
                *(("--inbox", inbox) if (inbox := plain_inbox_url(self._home, role.name)) else ()),
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
