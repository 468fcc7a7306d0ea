"""Keeps one server running for several processes: `keeper.py NAME FOLDER OWNER`, where OWNER is a process id or 0.

Writes FOLDER/address when the server answers, or FOLDER/problem, and stops it when it is told to end or when the owner
is gone, however that came about.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

# run as a program, it finds its neighbours by itself
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.servers import PRIVATE, START_S, ServiceMissing


def keep(name: str, folder: Path, owner: int) -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    (folder / "pid").write_text(str(os.getpid()))
    server = None
    try:
        server = PRIVATE[name](folder=folder / "server")
        server.start()
        _write(folder / "address", server.url)
        while not ended.wait(0.5) and server.is_running and (owner == 0 or _is_alive(owner)):
            pass
    except ServiceMissing as error:
        _write(folder / "problem", str(error))
    finally:
        (folder / "address").unlink(missing_ok=True)
        if server is not None:
            server.close()


def start_keeper(name: str, folder: Path, owner: int) -> str:
    """Start a server that outlives this process, and give its URL; the one that is there if it runs already.

    It ends with the process `owner`, or with `stop_keeper` if that is 0. Raises `ServiceMissing`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        address, problem = folder / "address", folder / "problem"
        if address.exists():
            return address.read_text()
        if problem.exists():
            raise ServiceMissing(problem.read_text())
        with (folder / "keeper.log").open("ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, __file__, name, str(folder), str(owner)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + START_S + 30
        while time.monotonic() < until:
            if address.exists():
                # it is not ours to wait for
                keeper.returncode = 0
                return address.read_text()
            if keeper.poll() is not None:
                break
            time.sleep(0.05)
        keeper.kill()
        keeper.wait()
        said = problem.read_text() if problem.exists() else (folder / "keeper.log").read_text()[-2000:]
        raise ServiceMissing(said or f"{name} did not come up")


def stop_keeper(folder: Path) -> bool:
    """Stop what `start_keeper` has started, and wait until it is gone. False when nothing runs there."""
    pid_file = folder / "pid"
    if not (folder / "address").exists() or not pid_file.exists():
        return False
    pid = int(pid_file.read_text())
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + 30
        while (folder / "address").exists() and time.monotonic() < until:
            time.sleep(0.05)
    return True


def _write(path: Path, text: str) -> None:
    """All at once, for those who wait for it."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    keep(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
