"""The processes of a contestant: told what to do by lines of JSON, one answer for each."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import structlog

LOOK_S: Final = 0.2
"""How often a load looks how many sagas have ended."""
_STOP_S: Final = 20.0


class PartFailed(Exception):
    """A process of a contestant ended before it was told to; its last words are on the error output."""


class Part:
    """A Python process that calls `serve`, alive inside the `with` block. It is a session of its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._environment = {**os.environ, **(environment or {})}

    @classmethod
    def of(cls, module: str, *words: str) -> Part:
        """One of this Python."""
        return cls([sys.executable, "-m", module, *words])

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
            start_new_session=True,
        )
        try:
            self.hear()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, *words: object) -> Any:
        """Tell, and hear."""
        self.tell(*words)
        return self.hear()

    def tell(self, *words: object) -> None:
        """Say what to do."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(words).decode() + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it says why on its way out

    def hear(self) -> Any:
        """Wait for the answer to what was told. Raises `PartFailed`."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PartFailed(f"{' '.join(self._command[1:])} has ended")
        return msgspec.json.decode(line)


async def serve(answer: Callable[..., Awaitable[object]] | None = None) -> None:
    """Say that this process is ready, then answer each line until the input ends."""
    loop = asyncio.get_running_loop()
    say(None)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        say(None if answer is None else await answer(*msgspec.json.decode(line)))


def say(what: object) -> None:
    print(msgspec.json.encode(what).decode(), flush=True)


def quiet() -> None:
    """The output is for answers; logs that matter go to the error output."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
