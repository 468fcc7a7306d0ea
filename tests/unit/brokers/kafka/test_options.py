"""Kafka URLs."""

from __future__ import annotations

import pytest

pytest.importorskip("aiokafka")

from amends.brokers.kafka import KafkaOptions
from amends.contracts import UsageError


def test_a_url_names_servers_login_and_options() -> None:
    options = KafkaOptions.parse(
        "kafka://ada:p%40ss@one:9092,two:9093?prefix=shop&partitions=12&retention_s=60.5&tls=true&sasl=scram-sha-512"
    )
    assert options.servers == ("one:9092", "two:9093")
    assert (options.user, options.password, options.mechanism) == ("ada", "p@ss", "SCRAM-SHA-512")
    assert (options.prefix, options.partitions, options.retention_s, options.tls) == ("shop", 12, 60.5, True)


def test_what_is_not_said_has_defaults() -> None:
    options = KafkaOptions.parse("kafka://localhost")
    assert options == KafkaOptions(servers=("localhost",))
    assert (options.user, options.prefix, options.replication) == (None, "amends", 0)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("kafka://", "names no Kafka server"),
        ("kafka://a,,b", "names no Kafka server"),
        ("kafka://host/topic", "a Kafka URL is kafka://"),
        ("amqp://host", "a Kafka URL is kafka://"),
        ("kafka://host?partition=3", "partition is no option of a Kafka URL. Did you mean partitions?"),
        ("kafka://host?password=x", "password is no option of a Kafka URL"),
        ("kafka://host?partitions=many", "an option of the Kafka URL does not fit"),
        ("kafka://host?partitions=0", "partitions=0 does not fit"),
        ("kafka://host?prefix=a%20b", "prefix='a b' cannot begin a topic's name"),
        ("kafka://u:p@host?sasl=gssapi", "sasl='gssapi' is not known. Use one of plain"),
        ("kafka://host?sasl=scram-sha-256", "sasl=scram-sha-256 without a user"),
    ],
)
def test_what_cannot_be_is_refused(url: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        KafkaOptions.parse(url)
    assert says in str(refused.value)


def test_the_password_is_never_shown() -> None:
    options = KafkaOptions.parse("kafka://ada:s3cret@host")
    assert "s3cret" not in f"{options} {options!r} {options.place}"
    assert "user 'ada'" in repr(options)
