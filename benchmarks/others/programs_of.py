"""Processes that others bring along: servers and workers."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support.servers import Server, free_port

_ROOT: Final = Path(__file__).parents[2]


class Program(Server):
    """Any command. With a port it is ready when somebody listens there, else at once."""

    name = "program"

    def __init__(self, command: Sequence[str], port: int | None, environment: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._command, self._given = list(command), port
        self._environment = {"PYTHONPATH": str(_ROOT), **(environment or {})}
        if port is not None:
            self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _launch(self) -> subprocess.Popen[bytes]:
        return self._run(self._command, self._environment)

    def _wait_until_it_answers(self) -> None:
        if self._given is not None:
            super()._wait_until_it_answers()

    def _answers(self, connection: socket.socket) -> bool:
        return True


class RestateServer(Server):
    """A Restate node that is alone, with its own settings but for ports and folder."""

    name = "restate"

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program
        self._admin, self._node = free_port(), free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self._admin}"

    def _launch(self) -> subprocess.Popen[bytes]:
        environment = {
            "RESTATE_BASE_DIR": str(self.folder / "data"),
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{self.port}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{self._admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{self._node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{self._node}",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_LOG_FILTER": "warn",
            "RESTATE_DISABLE_TELEMETRY": "true",
        }
        return self._run([self._program, "--no-logo"], environment)

    def _answers(self, connection: socket.socket) -> bool:
        return _healthy(connection, "/restate/health") and self._admin_answers()

    def _admin_answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self._admin), timeout=5) as connection:
            return _healthy(connection, "/health")


def _healthy(connection: socket.socket, path: str) -> bool:
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    return connection.recv(12).endswith(b"200")
