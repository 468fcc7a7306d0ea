"""Servers in containers, where a docker engine runs."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any, Final

from msgspec import Struct
from tests.support.servers import free_port


class Image(Struct, frozen=True):
    """An image, its port, the URL of a container at a host and port, and what it says when it is ready."""

    name: str
    port: int
    url: str
    ready: str


IMAGES: Final = {
    "rabbitmq": Image("rabbitmq:4.1", 5672, "amqp://guest:guest@{}/", "Server startup complete"),
    "redis": Image("redis:7.2", 6379, "redis://{}/0", "Ready to accept connections"),
    "kafka": Image("apache/kafka:4.1.1", 9092, "kafka://{}", "Kafka Server started"),
}

_running: dict[str, tuple[Any, str]] = {}


def from_docker(name: str) -> str | None:
    """The URL of a container of this process, or None where there is no engine. It is removed when the process ends."""
    if name in _running:
        return _running[name][1]
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return None
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    image = IMAGES[name]
    # Kafka tells its clients where it is, so its port outside must be known before it starts
    port = free_port()
    container = DockerContainer(image.name).with_bind_ports(image.port, port)
    if name == "kafka":
        container = container.with_envs(**_kafka(port))
    container.waiting_for(LogMessageWaitStrategy(image.ready)).start()
    url = image.url.format(f"{container.get_container_host_ip()}:{port}")
    _running[name] = (container, url)
    return url


def _kafka(port: int) -> dict[str, str]:
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": "CONTROLLER://:9093,PLAINTEXT://:9092",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
