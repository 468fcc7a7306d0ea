"""A private PostgreSQL for those who need one, from the programs installed on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping
from glob import glob
from pathlib import Path

from tests.support.servers import Server, ServiceMissing

_USER = "postgres"


class PrivatePostgres(Server):
    """A cluster with the defaults of `initdb`; options of postgresql.conf as `config` change that.

    PostgreSQL refuses to run as root: then it runs as the user `postgres`.
    """

    name = "postgres"

    def __init__(self, config: Mapping[str, str] | None = None, folder: Path | None = None) -> None:
        super().__init__(folder)
        found = sorted(glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]))
        on_path = shutil.which("initdb")
        if not found and on_path is None:
            raise ServiceMissing("there is no PostgreSQL on this machine: install Debian's postgresql")
        self._bin = Path(found[-1]) if found else Path(on_path or "").parent
        self._config = dict(config or {})
        self._as_user = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"] if not os.getuid() else []

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/orders"

    def _launch(self) -> subprocess.Popen[bytes]:
        data = self.folder / "data"
        if not data.exists():
            data.mkdir()
            if self._as_user:
                shutil.chown(self.folder, _USER)
                shutil.chown(data, _USER)
            command = [str(self._bin / "initdb"), "-D", str(data), "-U", _USER, "--auth=trust", "--encoding=UTF8"]
            told = subprocess.run(
                [*self._as_user, *command], cwd=self.folder, capture_output=True, text=True, check=False
            )
            if told.returncode:
                raise ServiceMissing(f"PostgreSQL's folder cannot be set up: {told.stdout}{told.stderr}")
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            **self._config,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return self._run([*self._as_user, str(self._bin / "postgres"), "-D", str(data), *options])

    def _answers(self, connection: socket.socket) -> bool:
        # a start-up message: it is ready when it says that we are in, and not that it is starting
        words = b"\0".join((b"user", _USER.encode(), b"database", b"postgres", b"", b""))
        connection.sendall(struct.pack(">II", len(words) + 8, 196_608) + words)
        return connection.recv(1) == b"R"
