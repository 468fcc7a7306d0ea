"""Keeps one server running for several processes: `keeper.py NAME FOLDER OWNER`, where OWNER is a process id or 0.

Writes FOLDER/address when the server answers, or FOLDER/problem, and stops it when it is told to end or when the owner is
gone, however that came about.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path


def keep(name: str, folder: Path, owner: int) -> None:
    from tests.support.servers import PRIVATE, ServiceMissing

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    (folder / "pid").write_text(str(os.getpid()))
    server = None
    try:
        server = PRIVATE[name](folder=folder / "server")  # type: ignore[call-arg]
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
    sys.path.insert(0, str(Path(__file__).parents[2]))
    keep(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
