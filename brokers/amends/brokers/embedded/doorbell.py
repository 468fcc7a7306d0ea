"""Doorbells: how processes at one file tell each other that there is something, without looking at it all the time."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol
from uuid import uuid4

from amends.brokers.sqlite_file import FileUnavailable, SqliteFile

_MOST_BYTES: Final = 100
"""The longest path that a Unix socket can have everywhere (104 bytes on macOS, 108 on Linux, with the zero)."""
_POLL_S: Final = 0.05


class Doorbell(Protocol):
    """One member's doorbell. `address` is what others need to ring it; it is empty when it cannot be rung."""

    address: str

    def ring(self, address: str) -> bool:
        """Ring another one; False when nobody is behind that address any more. Never waits.

        A ring says no more than "look", so that one which does not fit into a full mailbox can be left out: whoever
        empties that has yet to look.
        """
        ...

    def close(self) -> None: ...


def open_doorbell(file: SqliteFile, on_ring: Callable[[], None], *, polling: bool = False) -> Doorbell:
    """A socket in the folder beside the file, or in the temporary one where that path would be too long.

    Where there are no Unix sockets, or with `polling`, the file is looked at 20 times a second instead.
    """
    if not polling and hasattr(socket, "AF_UNIX"):
        beside = members_folder(file)
        for folder in (beside, Path(tempfile.gettempdir()) / f"amends-{os.getuid()}"):
            with suppress(OSError):
                return SocketDoorbell(folder, on_ring, home=beside)
    return PollingDoorbell(file, on_ring)


def members_folder(file: SqliteFile) -> Path:
    """Where the sockets of those who use a file are."""
    return file.path.with_name(f"{file.path.name}-members")


class SocketDoorbell:
    """A Unix datagram socket. It vanishes with its process, and the others find out as soon as they ring."""

    def __init__(self, folder: Path, on_ring: Callable[[], None], *, home: Path) -> None:
        self._on_ring = on_ring
        self._home = home
        self._path = folder / uuid4().hex[:12]
        self.address = self._path.name if folder == home else str(self._path)
        if len(os.fsencode(self._path)) > _MOST_BYTES:
            raise OSError(f"{self._path} is too long for a socket")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise OSError(f"{folder} is no private folder")
        self._socket = _datagram_socket()
        try:
            self._socket.bind(str(self._path))
        except OSError:
            self._socket.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._answer)

    def ring(self, address: str) -> bool:
        return not address or _ring(self._socket, self._home / address)

    def _answer(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(16)
        self._on_ring()

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)


def _datagram_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


def _ring(sender: socket.socket, path: Path) -> bool:
    try:
        sender.sendto(b".", str(path))
    except FileNotFoundError:
        return False
    except ConnectionRefusedError:
        with suppress(OSError):
            if path.is_socket():
                path.unlink()
        return False
    except OSError:
        pass  # full, or not ours to ring: nothing is known about the other one
    return True


class PollingDoorbell:
    """Looks whether somebody else has written to the file. It cannot be rung, but rings those that can be."""

    address = ""

    def __init__(self, file: SqliteFile, on_ring: Callable[[], None]) -> None:
        self._file = file
        self._home = members_folder(file)
        self._on_ring = on_ring
        self._socket = _datagram_socket() if hasattr(socket, "AF_UNIX") else None
        self._loop = asyncio.get_running_loop()
        self._seen = 0
        self._timer: asyncio.Handle = self._loop.call_soon(self._look)

    def ring(self, address: str) -> bool:
        return not address or self._socket is None or _ring(self._socket, self._home / address)

    def _look(self) -> None:
        self._timer = self._loop.call_later(_POLL_S, self._look)
        # whoever uses the file is told that it cannot be read; it may come back
        with suppress(FileUnavailable):
            seen = self._file.read(lambda db: int(db.execute("PRAGMA data_version").fetchone()[0]))
            if seen != self._seen:
                self._seen = seen
                self._on_ring()

    def close(self) -> None:
        self._timer.cancel()
        if self._socket is not None:
            self._socket.close()
