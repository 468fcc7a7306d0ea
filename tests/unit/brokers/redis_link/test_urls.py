"""What a Redis URL means."""

from __future__ import annotations

import pytest

from amends.brokers.redis_link import Durability, RedisUrl, read_url
from amends.contracts import UsageError


def test_a_plain_url_is_one_server_with_defaults() -> None:
    url = read_url("redis://localhost")
    assert (url.kind, url.hosts, url.database, url.tls) == ("single", (("localhost", 6379),), 0, False)
    assert (url.namespace, url.durability) == ("amends", Durability())
    assert url.plain(*url.hosts[0]) == "redis://localhost:6379/0"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("redis://ada:se%2Fcret@host:6380/3?socket_timeout=2", "redis://ada:se%2Fcret@host:6380/3?socket_timeout=2"),
        ("rediss://:pw@[::1]:6380", "rediss://:pw@[::1]:6380/0"),
        ("redis+cluster://ada:pw@a:1,b:2?namespace=shop", "redis://ada:pw@a:1/0"),
        ("rediss+sentinel://ada:pw@a,b:2/sagas/5", "rediss://ada:pw@a:26379/5"),
    ],
)
def test_user_password_and_other_parameters_reach_every_server(text: str, plain: str) -> None:
    url = read_url(text)
    assert url.plain(*url.hosts[0]) == plain


def test_clusters_and_sentinels_name_several_hosts() -> None:
    cluster = read_url("redis+cluster://a:1,b")
    assert (cluster.kind, cluster.hosts) == ("cluster", (("a", 1), ("b", 6379)))
    sentinel = read_url("redis+sentinel://a,b:2/sagas/1?sentinel_password=pw")
    assert (sentinel.kind, sentinel.hosts) == ("sentinel", (("a", 26379), ("b", 2)))
    assert (sentinel.service, sentinel.database, sentinel.sentinel) == ("sagas", 1, (None, "pw"))


def test_durability_says_how_many_replicas_and_how_long() -> None:
    assert read_url("redis://h?durability=replicated").durability == Durability(1, 2.0)
    assert read_url("redis://h?durability=replicated&replicas=2&wait=0.5").durability == Durability(2, 0.5)
    assert read_url("redis://h?durability=local&replicas=2").durability == Durability()


def test_people_are_shown_hosts_and_no_secrets() -> None:
    url: RedisUrl = read_url("redis+sentinel://ada:secret@a,b:2/sagas?sentinel_password=hidden")
    assert url.where == "a:26379,b:2 (service 'sagas')"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("redis://ada:secret@a,b", "is no URL of one Redis.*redis\\+cluster://"),
        ("redis+lost://ada:secret@a", "is no URL of one Redis"),
        ("redis://ada:secret@host/shop", "no database number"),
        ("redis+cluster://ada:secret@host/1", "no database number"),
        ("redis+sentinel://ada:secret@host", "does not name the sentinels' service"),
        ("redis://ada:secret@host:port", "cannot be read"),
        ("redis://ada:secret@host?namespace={x}", "namespace='{x}' does not fit"),
        ("redis://ada:secret@host?durability=full", "use local .* or replicated"),
        ("redis://ada:secret@host?durability=replicated&replicas=0", "replicas of 1 or more"),
        ("redis://ada:secret@host?durability=replicated&wait=60", "a wait of 0.001 to 4"),
        ("redis://ada:secret@host?durability=replicated&replicas=many", "replicas=1&wait=2"),
    ],
)
def test_urls_that_cannot_be_are_refused_with_how_to_write_them(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        read_url(text)
    assert "secret" not in str(caught.value)
