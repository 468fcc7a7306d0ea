"""Doorbells of the embedded broker."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from amends.brokers.embedded.doorbell import (
    Doorbell,
    PollingDoorbell,
    SocketDoorbell,
    members_folder,
    open_doorbell,
)
from amends.brokers.sqlite_file import SqliteFile

GUARD_S = 20.0
SCHEMA = ("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY)",)


class House:
    """Doorbells at one file; `rung` gets the name of each that rings."""

    def __init__(self, file: SqliteFile) -> None:
        self.file = file
        self.rung: asyncio.Queue[str] = asyncio.Queue()
        self.doorbells: list[Doorbell] = []

    def open(self, name: str, *, polling: bool = False) -> Doorbell:
        doorbell = open_doorbell(self.file, lambda: self.rung.put_nowait(name), polling=polling)
        self.doorbells.append(doorbell)
        return doorbell

    async def heard(self) -> str:
        async with asyncio.timeout(GUARD_S):
            return await self.rung.get()


async def house_at(path: Path) -> AsyncIterator[House]:
    house = House(SqliteFile.open(path, SCHEMA))
    yield house
    for doorbell in house.doorbells:
        doorbell.close()
    await house.file.close()


@pytest.fixture
async def house(short_path: Path) -> AsyncIterator[House]:
    async for house in house_at(short_path / "amends.db"):
        yield house


@pytest.fixture
async def deep_house(tmp_path: Path) -> AsyncIterator[House]:
    async for house in house_at(tmp_path / ("x" * 100) / "amends.db"):
        yield house


async def test_a_ring_is_heard_by_the_one_that_was_meant(house: House) -> None:
    one, two, three = house.open("one"), house.open("two"), house.open("three")
    assert one.ring(three.address)
    assert await house.heard() == "three"
    assert three.ring(two.address)
    assert await house.heard() == "two"
    assert house.rung.empty()


async def test_nobody_else_can_reach_the_folder_of_the_sockets(house: House) -> None:
    house.open("one")
    assert stat.S_IMODE(os.stat(members_folder(house.file)).st_mode) == 0o700


async def test_one_that_was_closed_does_not_answer(house: House) -> None:
    one, two = (
        house.open("one"),
        SocketDoorbell(members_folder(house.file), lambda: None, home=members_folder(house.file)),
    )
    assert one.ring(two.address)
    two.close()
    assert not one.ring(two.address)
    assert not one.ring("never-there")


async def test_what_a_killed_process_left_behind_is_found_and_removed(house: House) -> None:
    one = house.open("one")
    folder = members_folder(house.file)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(str(folder / "left"))
        assert one.ring("left")
    assert sorted(os.listdir(folder)) == sorted([one.address, "left"])
    assert not one.ring("left")
    assert os.listdir(folder) == [one.address]


async def test_only_sockets_are_removed(house: House) -> None:
    one = house.open("one")
    os.mknod(members_folder(house.file) / "file")
    assert not one.ring("file")
    assert "file" in os.listdir(members_folder(house.file))


async def test_a_full_mailbox_counts_as_alive_and_its_owner_looks_once_it_can(house: House) -> None:
    one, two = house.open("one"), house.open("two")
    assert all(one.ring(two.address) for _ in range(10_000))
    assert await house.heard() == "two"


async def test_where_the_path_is_too_long_the_socket_is_in_the_temporary_folder(deep_house: House) -> None:
    one, two = deep_house.open("one"), deep_house.open("two")
    assert os.path.dirname(two.address) == os.path.join(tempfile.gettempdir(), f"amends-{os.getuid()}")
    assert stat.S_IMODE(os.stat(os.path.dirname(two.address)).st_mode) == 0o700
    assert one.ring(two.address)
    assert await deep_house.heard() == "two"
    two.close()
    assert not one.ring(two.address)
    deep_house.doorbells.remove(two)


async def test_a_folder_that_others_can_enter_is_not_used(house: House) -> None:
    os.mkdir(members_folder(house.file), 0o755)
    assert os.path.dirname(house.open("one").address) != ""


async def test_without_sockets_what_others_write_is_seen(house: House) -> None:
    house.open("polling", polling=True)
    assert await house.heard() == "polling"
    await house.file.write(lambda db: db.execute("INSERT INTO notes VALUES (1)") and None)
    assert await house.heard() == "polling"


async def test_one_without_a_socket_rings_others_and_counts_as_alive(house: House) -> None:
    polling, one = house.open("polling", polling=True), house.open("one")
    assert isinstance(polling, PollingDoorbell)
    assert await house.heard() == "polling"
    assert polling.ring(one.address)
    assert await house.heard() == "one"
    assert one.ring(polling.address)
    assert not polling.ring("never-there")
