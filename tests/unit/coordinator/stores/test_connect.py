"""Which store a URL opens."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.sagas import commit, snapshot

from amends.contracts import UsageError
from amends.coordinator.store import CommitResult, SagaQuery
from amends.coordinator.stores import MemoryStore, SqliteStore, connect_store


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("url", "file"),
    [
        (None, ".amends/amends.db"),
        ("", ".amends/amends.db"),
        ("sqlite:", ".amends/amends.db"),
        ("sqlite:some/place.db", "some/place.db"),
        ("sqlite:with space%20.db", "with space%20.db"),
        ("sqlite://{here}/absolute.db", "absolute.db"),
    ],
)
async def test_sqlite_urls_open_a_file(tmp_path: Path, url: str | None, file: str) -> None:
    store = await connect_store(url and url.format(here=tmp_path))
    assert isinstance(store, SqliteStore)
    await store.commit([commit(snapshot())])
    await store.close()
    again = SqliteStore.open(tmp_path / file)
    assert await again.count(SagaQuery()) == 1
    await again.close()


async def test_memory_stores_are_shared_by_name_and_outlive_their_closing() -> None:
    store = await connect_store("memory:")
    assert isinstance(store, MemoryStore)
    await store.commit([commit(snapshot())])
    await store.close()
    assert await (await connect_store("memory:")).count(SagaQuery()) == 1
    assert await (await connect_store("memory:other")).count(SagaQuery()) == 0


def test_memory_stores_of_another_event_loop_are_others() -> None:
    async def start() -> int:
        store = await connect_store("memory:shared")
        await store.commit([commit(snapshot())])
        return await store.count(SagaQuery())

    assert [asyncio.run(start()), asyncio.run(start())] == [1, 1]


async def test_redis_urls_open_a_redis_store(redis_url: str) -> None:
    store = await connect_store(f"{redis_url}?namespace=connect-{os.urandom(6).hex()}")
    assert list(await store.commit([commit(snapshot())])) == [CommitResult.COMMITTED]
    await store.close()


@pytest.mark.parametrize("package", ["redis", "hiredis"])
def test_without_its_packages_the_redis_store_says_what_to_install(package: str) -> None:
    probe = (
        f"import asyncio, sys; sys.modules[{package!r}] = None\n"
        "from amends.coordinator.stores import connect_store\n"
        "asyncio.run(connect_store('redis://host'))"
    )
    told = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert f"UsageError: the Redis store needs the package {package}. pip install 'amends[redis]'" in told.stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgres://ada:secret@host/db", r"postgres: .*Available are sqlite: .* memory:"),
        ("amends.db", r"no scheme.*Available are sqlite:"),
        ("sqlite://relative.db", r"sqlite:relative/path\.db or sqlite:///absolute"),
        ("sqlite:///", r"names no file"),
        ("sqlite::memory:", r"Use memory:"),
    ],
)
async def test_other_urls_are_refused_with_what_is_available_and_without_secrets(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        await connect_store(url)
    assert "secret" not in str(caught.value)
