"""The supervisor of `amends run --workers N`: keeps N processes of the same command running."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from amends.coordinator.cli.errors import Exit
from amends.coordinator.cli.worker import READY, VARIABLE

log = structlog.get_logger("amends.coordinator")

_AMENDS: Final = "from amends.coordinator.cli import main; main()"
"""The command `amends`, in this very Python."""

_SHORTEST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 30.0
_STEADY_S: Final = 60.0
"""How long a worker must have run for its death to count as the first one again."""


class Child:
    """One process. `pid` is its process id."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self.pid = process.pid
        self._process, self._channel = process, channel

    @classmethod
    async def start(cls, number: int, arguments: Sequence[str]) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _AMENDS, *arguments),
                stdin=theirs.fileno(),
                env={**os.environ, VARIABLE: str(number)},
                # Ctrl-C is for the supervisor, which passes it on: told by both, they would stop at once
                start_new_session=True,
            )
        ours.setblocking(False)
        return cls(process, ours)

    async def ready(self) -> bool:
        """Wait until it works. False when it ends before."""
        with suppress(ConnectionResetError):
            return await asyncio.get_running_loop().sock_recv(self._channel, 1) == READY
        return False

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()

    async def ended(self) -> int:
        """Wait for its end; the exit code, or minus the number of the signal that killed it."""
        return await self._process.wait()

    def close(self) -> None:
        self._channel.close()


class Supervisor:
    """Starts workers with the arguments of this command, and replaces those that die until `stop` is set.

    The first is started alone, so that what would keep each of them from starting (a module, a password) is told once.
    """

    def __init__(self, arguments: Sequence[str], count: int, stop: asyncio.Event) -> None:
        self._arguments, self._stop = arguments, stop
        self._ready = {number: asyncio.Event() for number in range(1, count + 1)}
        self._children: dict[int, Child] = {}
        self._code = int(Exit.OK)

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers, in the order of their numbers."""
        return [self._children[number].pid for number in sorted(self._children)]

    async def run(self, on_running: Callable[[], None], on_told: Callable[[], None]) -> int:
        """Keep the workers running; `on_running` is called once, when all of them work, `on_told` when told to stop.

        Gives the exit code: 0 when it was told to stop and all ended well; that of the worker that could not start.
        """
        telling = asyncio.create_task(self._tell(on_running, on_told))
        try:
            async with asyncio.TaskGroup() as group:
                for number in self._ready:
                    group.create_task(self._keep(number))
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        return self._code

    async def _tell(self, on_running: Callable[[], None], on_told: Callable[[], None]) -> None:
        for ready in self._ready.values():
            await self._unless_told(ready.wait())
        if not self._stop.is_set():
            on_running()
            await self._stop.wait()
        if self._code == Exit.OK:
            on_told()

    async def _keep(self, number: int) -> None:
        if number > 1:
            await self._unless_told(self._ready[1].wait())
        loop = asyncio.get_running_loop()
        wait = _SHORTEST_WAIT_S
        while not self._stop.is_set():
            began = loop.time()
            try:
                code = await self._live(number)
            except OSError as error:
                # too many processes or open files: it passes
                log.error("a worker cannot be started", worker=number, problem=str(error))
                code = int(Exit.FAILED)
            if self._stop.is_set():
                # one that was told before it could listen is ended by the signal itself
                if code not in (Exit.OK, -signal.SIGTERM):
                    log.error("a worker did not end well", worker=number, ended=_how(code))
                    self._code = self._code or int(Exit.FAILED)
            elif not all(ready.is_set() for ready in self._ready.values()):
                # it has said why
                self._code = code if code > 0 else int(Exit.FAILED)
                log.error("a worker cannot start, so none does", worker=number, ended=_how(code))
                self._stop.set()
            else:
                if loop.time() - began > _STEADY_S:
                    wait = _SHORTEST_WAIT_S
                log.error("a worker ended; another takes its place", worker=number, ended=_how(code), in_s=wait)
                await self._unless_told(asyncio.sleep(wait))
                wait = min(2 * wait, _LONGEST_WAIT_S)

    async def _live(self, number: int) -> int:
        """One life of a worker; gives its exit code."""
        child = self._children[number] = await Child.start(number, self._arguments)
        ended = asyncio.create_task(child.ended())
        listening = asyncio.create_task(self._listen(number, child))
        try:
            await self._unless_told(asyncio.shield(ended))
            if self._stop.is_set():
                child.stop()
            return await ended
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            child.close()

    async def _listen(self, number: int, child: Child) -> None:
        if await child.ready():
            if self._ready[number].is_set():
                log.info("a worker has taken its place", worker=number, pid=child.pid)
            self._ready[number].set()

    async def _unless_told(self, work: Awaitable[object]) -> None:
        """Wait for something, but not beyond the word to stop."""
        waits = [asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()


def _how(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"with code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
