"""Real servers that tests start privately on free ports of this machine, from the programs installed on it.

Each keeps its port and its data from `start` to `close`, through `kill`, `stop` and `restart`. All of them die with the
process that started them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Mapping, Sequence
from glob import glob
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Self

START_S = 90.0
KAFKA_VERSION = "4.1.1"


class ServiceMissing(Exception):
    """The programs of a service are not on this machine, or do not start."""


class Server(ABC):
    """One server process with a folder and a port of its own. A context manager: starts on entry, closes on exit."""

    name: ClassVar[str]

    def __init__(self, folder: Path | None = None) -> None:
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"amends-{self.name}-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has said so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it answers. Raises `ServiceMissing`."""
        self._process = self._launch()
        self._wait_until_it_answers()
        return self

    def kill(self) -> None:
        """Kill it with -9, as a power cut would, but that what the operating system holds is not lost."""
        if self._process is not None:
            signal_group(self._process, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def restart(self) -> None:
        """Start it again, on the same port and data; it is stopped first if it still runs."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: its port is open, and nobody answers."""
        assert self._process is not None
        signal_group(self._process, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        assert self._process is not None
        signal_group(self._process, signal.SIGCONT)

    def close(self) -> None:
        """End it, at once, and remove its folder."""
        self.kill()
        for process in self._others:
            signal_group(process, signal.SIGKILL)
            process.wait()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def _answers(self, connection: socket.socket) -> bool:
        """Whether the server behind a fresh connection is ready to work."""

    def _run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own, which ends with this one where the system can do that."""
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_until_it_answers(self) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if not self.is_running:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                    if self._answers(connection):
                        return
            except OSError:
                pass
            time.sleep(0.05)
        said = self.log[-2000:]
        self.kill()
        raise ServiceMissing(f"{self.name} did not come up within {START_S:.0f} s. It said: {said}")


class PrivateRabbitmq(Server):
    """A RabbitMQ node without plugins.

    Users: `guest` may do everything, `reader` (password `reader`) may read and declare nothing.
    """

    name = "rabbitmq"

    def __init__(self, folder: Path | None = None, *, config: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self._program = _newest("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server", "rabbitmq-server")
        self._config = dict(config or {})
        self._node_port, self._names_port = free_port(), free_port()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def url_of(self, user: str, password: str) -> str:
        return f"amqp://{user}:{password}@127.0.0.1:{self.port}/"

    def until_saved(self) -> None:
        """Wait until the node has on disk which quorum queues it has.

        Up to RabbitMQ 3.13 it writes that down half a second after the last queue was made, and a node that is killed
        before has a queue without a leader for ever after (rabbitmq/ra#443).
        """
        until = time.monotonic() + 10
        while time.monotonic() < until:
            # the third word of such a file says whether all of it was written
            if all(path.read_bytes()[8:12] == b"\0\0\0\1" for path in self.folder.glob("data/*/quorum/*/names.dets")):
                return
            time.sleep(0.05)

    def control(self, *words: str) -> None:
        """Run `rabbitmqctl` on this node."""
        program = Path(self._program).with_name("rabbitmqctl")
        environment = {**os.environ, "HOME": str(self.folder / "home"), "ERL_EPMD_PORT": str(self._names_port)}
        command = [str(program), "--quiet", "--node", f"amends{self.port}@localhost", *words]
        subprocess.run(command, env=environment, cwd=self.folder, check=True, capture_output=True, timeout=60)

    def _launch(self) -> subprocess.Popen[bytes]:
        folder = self.folder
        home = folder / "home"
        home.mkdir(exist_ok=True)
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(os.urandom(10).hex().upper())
            cookie.chmod(0o400)
        (folder / "definitions.json").write_text(json.dumps(_definitions()))
        (folder / "plugins").write_text("[].\n")
        config = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "log.console": "true",
            "log.console.level": "warning",
            "log.file": "false",
            "load_definitions": str(folder / "definitions.json"),
            "vm_memory_high_watermark.relative": "0.6",
            "disk_free_limit.absolute": "50MB",
            **self._config,
        }
        (folder / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in config.items()))
        environment = {
            "HOME": str(home),
            "ERL_EPMD_PORT": str(self._names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"amends{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_BASE": str(folder),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            # the script then becomes the node, instead of watching over it
            "RABBITMQ_ALLOW_INPUT": "1",
        }
        if not self._others and (names := shutil.which("epmd")):
            # one that is ours, and ends with us; the node would start one that stays
            self._others.append(self._run([names, "-port", str(self._names_port), "-address", "127.0.0.1"]))
            _until_open(self._names_port)
        return self._run([self._program, "-noinput"], environment)

    def _answers(self, connection: socket.socket) -> bool:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return connection.recv(1) == b"\x01"


class PrivateRedis(Server):
    """A Redis without persistence; options of redis.conf as `config` change that.

    `PrivateRedis({"appendonly": "yes", "appendfsync": "always"})`. `kind` is `redis` or `valkey`; without it, what
    `AMENDS_TEST_REDIS` says, or what is there.
    """

    name = "redis"

    def __init__(
        self, config: Mapping[str, str] | None = None, folder: Path | None = None, *, kind: str | None = None
    ) -> None:
        super().__init__(folder)
        self._program = redis_program(kind or os.environ.get("AMENDS_TEST_REDIS", ""))
        self._config = dict(config or {})

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _launch(self) -> subprocess.Popen[bytes]:
        config = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "databases": "64",
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            **self._config,
        }
        options = [word for name, value in config.items() for word in (f"--{name}", value)]
        return self._run([self._program, *options])

    def _answers(self, connection: socket.socket) -> bool:
        connection.sendall(b"PING\r\n")
        # not +LOADING, nor a replica that still synchronises; with a password, -NOAUTH is an answer
        return connection.recv(5) in (b"+PONG", b"-NOAU")


class PrivateKafka(Server):
    """A Kafka broker that is its own controller, from the jars of `tests/services --install kafka`."""

    name = "kafka"

    def __init__(
        self, folder: Path | None = None, *, config: Mapping[str, str] | None = None, version: str = KAFKA_VERSION
    ) -> None:
        super().__init__(folder)
        java = shutil.which("java")
        self._libs = kafka_libs(version)
        if java is None or not self._libs.is_dir():
            raise ServiceMissing(f"there is no Kafka {version} here: run tests/services --install kafka")
        self._java, self._config = java, dict(config or {})
        self._controller_port = free_port()

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"

    def _launch(self) -> subprocess.Popen[bytes]:
        properties = self.folder / "server.properties"
        classes = str(self._libs / "*")
        if not properties.exists():
            config = {
                "process.roles": "broker,controller",
                "node.id": "1",
                "controller.quorum.voters": f"1@localhost:{self._controller_port}",
                "listeners": f"PLAINTEXT://localhost:{self.port},CONTROLLER://localhost:{self._controller_port}",
                "advertised.listeners": f"PLAINTEXT://localhost:{self.port}",
                "controller.listener.names": "CONTROLLER",
                "inter.broker.listener.name": "PLAINTEXT",
                "log.dirs": str(self.folder / "data"),
                "offsets.topic.num.partitions": "4",
                "offsets.topic.replication.factor": "1",
                "transaction.state.log.num.partitions": "4",
                "transaction.state.log.replication.factor": "1",
                "transaction.state.log.min.isr": "1",
                "share.coordinator.state.topic.replication.factor": "1",
                "share.coordinator.state.topic.min.isr": "1",
                "group.initial.rebalance.delay.ms": "0",
                "group.min.session.timeout.ms": "1000",
                "auto.create.topics.enable": "false",
                "log.index.size.max.bytes": "65536",
                "log.cleaner.dedupe.buffer.size": "2097152",
                **self._config,
            }
            properties.write_text("".join(f"{name}={value}\n" for name, value in config.items()))
            identity = b64encode(os.urandom(16), b"_-").decode().rstrip("=")
            tool = [self._java, "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classes]
            told = subprocess.run(
                [*tool, "kafka.tools.StorageTool", "format", "-t", "A" + identity[1:], "-c", str(properties)],
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
            )
            if told.returncode:
                raise ServiceMissing(f"Kafka's folder cannot be set up: {told.stdout}{told.stderr}")
        memory = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return self._run([self._java, *memory, "-cp", classes, "kafka.Kafka", str(properties)])

    def _answers(self, connection: socket.socket) -> bool:
        # ApiVersions, version 0, of a client without a name
        connection.sendall(b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff")
        return len(connection.recv(4)) == 4


PRIVATE: dict[str, type[Server]] = {"rabbitmq": PrivateRabbitmq, "redis": PrivateRedis, "kafka": PrivateKafka}


def kafka_libs(version: str = KAFKA_VERSION) -> Path:
    """Where the jars of a Kafka version lie."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "amends" / f"kafka-{version}"


def redis_program(kind: str = "") -> str:
    """A server program: of Redis, of Valkey, or whichever is there. Raises `ServiceMissing`."""
    valkey = shutil.which("valkey-server") or shutil.which(valkey_folder() / "usr/bin/valkey-server")
    program = {"redis": shutil.which("redis-server"), "valkey": valkey}.get(
        kind, shutil.which("redis-server") or valkey
    )
    if program is None:
        name = kind or "redis"
        raise ServiceMissing(f"there is no {name}-server on this machine: run tests/services --install {name}")
    return program


def valkey_folder() -> Path:
    """Where Valkey's packages are unpacked."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "amends" / "valkey"


def free_port() -> int:
    """A port that nobody listens on. Not from the range that outgoing connections take theirs from."""
    for _ in range(100):
        port = 10_000 + int.from_bytes(os.urandom(2)) % 20_000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceMissing("no free port found between 10000 and 30000")


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a process and all its children; one that has ended is left alone."""
    if process.poll() is None:
        os.killpg(process.pid, number)


def _newest(pattern: str, name: str) -> str:
    """A program in the folder of its newest version, or on the path."""
    found = sorted(glob(pattern))
    if not found and (on_path := shutil.which(name)):
        found = [on_path]
    if not found:
        raise ServiceMissing(f"there is no {name} on this machine: run tests/services --install rabbitmq")
    return found[-1]


def _until_open(port: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)


def _definitions() -> dict[str, object]:
    def user(name: str, tags: str) -> dict[str, str]:
        salt = b"salt"
        hashed = b64encode(salt + sha256(salt + name.encode()).digest()).decode()
        algorithm = "rabbit_password_hashing_sha256"
        return {"name": name, "password_hash": hashed, "hashing_algorithm": algorithm, "tags": tags}

    def rights(name: str, configure: str, write: str, read: str) -> dict[str, str]:
        return {"user": name, "vhost": "/", "configure": configure, "write": write, "read": read}

    return {
        "users": [user("guest", "administrator"), user("reader", "")],
        "vhosts": [{"name": "/"}],
        "permissions": [rights("guest", ".*", ".*", ".*"), rights("reader", "^$", "^$", ".*")],
    }
