"""Real `amends` processes for tests: started, listened to, stopped."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-c", "from amends.coordinator.cli import main; main()"]
SHOP = str(Path(__file__).with_name("shop.py"))


def environment(**variables: str) -> dict[str, str]:
    """The environment without settings of amends, and then with these variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AMENDS_", "NO_COLOR"))}
    return {**clean, "PYTHONUNBUFFERED": "1", **variables}


class Process:
    """An `amends` process, or one of another `command`, whose lines can be waited for. Standard output and error come
    as one stream."""

    def __init__(self, *arguments: str, cwd: Path, command: Sequence[str] = tuple(COMMAND), **variables: str) -> None:
        self.lines: list[str] = []
        self._popen = subprocess.Popen(
            [*command, *arguments],
            cwd=cwd,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, text: str, timeout_s: float = 30) -> str:
        """The next line that holds `text`. Fails when the process ends, or is silent for too long, before."""
        while True:
            try:
                line = self._queue.get(timeout=timeout_s)
            except queue.Empty:
                raise AssertionError(f"no {text!r} within {timeout_s} s; said so far: {self.lines}") from None
            if line is None:
                raise AssertionError(f"ended without {text!r}: {self.lines}")
            self.lines.append(line)
            if text in line:
                return line

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout_s: float = 30) -> int:
        """Its exit code; whatever it still said is in `lines`."""
        code = self._popen.wait(timeout_s)
        self._reader.join(timeout_s)
        while not self._queue.empty():
            if (line := self._queue.get()) is not None:
                self.lines.append(line)
        return code

    def gone(self, timeout_s: float = 30) -> bool:
        """Whether all who could write to its output have ended: it, and whatever it has started."""
        self._reader.join(timeout_s)
        return not self._reader.is_alive()

    def stop(self) -> int:
        """Stop it gracefully; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        self._popen.kill()
        self._popen.wait()
        self._reader.join()
        assert self._popen.stdout is not None
        self._popen.stdout.close()


@contextmanager
def running(*arguments: str, cwd: Path, until: str = "Running", **variables: str) -> Iterator[Process]:
    """`amends run …`, from the moment it runs."""
    process = Process("run", *arguments, cwd=cwd, **variables)
    try:
        # with workers it is three processes that start one after the other, on a machine that may be busy
        process.wait_for(until, timeout_s=90)
        yield process
    finally:
        process.close()


def amends(*arguments: str, cwd: Path, input: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**variables),
        input=input,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
