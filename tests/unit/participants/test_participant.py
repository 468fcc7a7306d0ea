"""A participant in a program: `running`, `lifespan`, and the inbox that it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.desk import ME, SERVICE, Desk, Reserve, Reserved, key
from tests.support.timeline import Timeline

from amends import participants
from amends.brokers import EmbeddedBroker, MemoryBroker, connect_broker
from amends.contracts import ReplyOutcome, SystemClock, UsageError
from amends.participants import Inbox, MemoryInbox, Participant, SqliteInbox, connect_inbox
from amends.participants.connect import inbox_beside
from amends.participants.rows import Settle

EXPORTS = {
    *("BrokenPromise", "Context", "Inbox", "MemoryInbox", "Participant", "ParticipantDefinitionError"),
    *(
        "ParticipantRunner",
        "Reject",
        "Retention",
        "Session",
        "SqliteInbox",
        "TransactionalInbox",
        "Undoes",
        "connect_inbox",
    ),
}

LAMP = Reserve(sku="lamp")


@pytest.fixture
def inventory() -> Participant:
    inventory = Participant(SERVICE)

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        return Reserved(reservation="r")

    return inventory


async def ask(broker: Any, inventory: Participant, effect_key: str = key()) -> ReplyOutcome | None:
    """Send a command, and wait for the answer."""
    client = await broker.consume_client(ME)
    desk = Desk(inventory, MemoryInbox(), Timeline(SystemClock().now()))
    await broker.publish([desk.command(LAMP, effect_key=effect_key)])
    (delivery,) = await client.receive()
    await client.ack([delivery])
    await client.close()
    assert delivery.envelope is not None
    return delivery.envelope.outcome


def test_public_names() -> None:
    assert {name for name in vars(participants) if name[0].isupper() or name == "connect_inbox"} == EXPORTS


async def test_running_participant_answers(inventory: Participant) -> None:
    broker = MemoryBroker()
    async with inventory.running(broker):
        assert await ask(broker, inventory) is ReplyOutcome.DONE
    await broker.publish([])


async def test_broker_that_was_given_is_left_open_and_one_of_a_url_is_closed(
    inventory: Participant, tmp_path: Path
) -> None:
    url = f"embedded:{tmp_path / 'amends.db'}"
    async with inventory.running(url):
        broker = await connect_broker(url)
        assert await ask(broker, inventory) is ReplyOutcome.DONE
    async with inventory.running(broker):
        assert await ask(broker, inventory) is ReplyOutcome.DONE
    await broker.close()


async def test_inbox_of_the_embedded_broker_is_in_its_file(inventory: Participant, tmp_path: Path) -> None:
    path = tmp_path / "amends.db"
    broker = await EmbeddedBroker.open(path)
    async with inventory.running(broker):
        await ask(broker, inventory)
    await broker.close()
    inbox = SqliteInbox.open(path)
    (settled,) = await inbox.begin([Settle(effect_key=key(), revision=0, issued_at=None)])
    assert settled.outcome is ReplyOutcome.DONE  # type: ignore[union-attr]
    await inbox.close()


async def test_inbox_may_be_named_for_the_participant_or_for_the_run(tmp_path: Path) -> None:
    inventory = Participant(SERVICE, inbox=f"sqlite:{tmp_path / 'own.db'}")

    @inventory.action
    async def reserve(command: Reserve) -> Reserved:
        return Reserved(reservation="r")

    broker = MemoryBroker()
    async with inventory.running(broker):
        await ask(broker, inventory)
    assert (tmp_path / "own.db").exists()
    async with inventory.running(broker, inbox=f"sqlite:{tmp_path / 'other.db'}"):
        await ask(broker, inventory)
    assert (tmp_path / "other.db").exists()


async def test_without_a_broker_the_environment_says_which(
    inventory: Participant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMENDS_BROKER", "embedded:here.db")
    monkeypatch.setenv("AMENDS_INBOX", "sqlite:inbox.db")
    async with inventory.running():
        assert (tmp_path / "here.db").exists()
        assert (tmp_path / "inbox.db").exists()
    monkeypatch.delenv("AMENDS_BROKER")
    monkeypatch.delenv("AMENDS_INBOX")
    async with inventory.running():
        assert (tmp_path / ".amends" / "amends.db").exists()


async def test_lifespan_runs_the_participant_for_the_life_of_an_application(
    inventory: Participant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"embedded:{tmp_path / 'amends.db'}"
    monkeypatch.setenv("AMENDS_BROKER", url)
    app = object()
    async with inventory.lifespan(app) as state:
        broker = await connect_broker(url)
        assert await ask(broker, inventory) is ReplyOutcome.DONE
        await broker.close()
    assert state is None


async def test_error_of_the_body_is_not_hidden(inventory: Participant) -> None:
    with pytest.raises(ZeroDivisionError):
        async with inventory.running(MemoryBroker()):
            _ = 1 / 0


async def test_file_that_is_no_database_is_told_at_once(inventory: Participant, tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(Exception, match="damaged"):
        async with inventory.running(MemoryBroker(), inbox=f"sqlite:{tmp_path / 'bad.db'}"):
            raise AssertionError("the body must not be entered")


@pytest.mark.parametrize("form", ["sqlite:{}", "sqlite://{}", "embedded:{}"])
async def test_inbox_urls_that_name_a_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / "100% mine.db"
    inbox = await connect_inbox(form.format(path))
    assert isinstance(inbox, SqliteInbox)
    assert path.exists()
    await inbox.close()


async def test_memory_inbox_is_a_new_one_each_time() -> None:
    one, other = await connect_inbox("memory:"), await connect_inbox("memory:")
    assert isinstance(one, MemoryInbox)
    assert one is not other


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("inventory.db", "is no URL. Use redis://host, sqlite:"),
        ("mysql://localhost", "there is no inbox mysql:"),
        ("redis://localhost/shop", "no database number"),
        ("sqlite:", "names no file"),
        ("sqlite://host/file.db", "names no file"),
        ("sqlite::memory:", "names no file"),
    ],
)
async def test_inbox_url_that_cannot_be_is_refused(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        await connect_inbox(url)


class Networked(MemoryBroker):
    shared = True


async def test_broker_of_another_kind_needs_a_named_inbox() -> None:
    with pytest.raises(UsageError, match="needs an inbox that is named"):
        inbox_beside(Networked())


async def test_inboxes_are_what_the_port_says(tmp_path: Path) -> None:
    sqlite: Inbox = SqliteInbox.open(tmp_path / "inbox.db")
    memory: Inbox = MemoryInbox()
    assert (sqlite.shared, memory.shared) == (True, False)
    await sqlite.close()


async def test_broker_and_inbox_that_are_not_given_come_from_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inventory: Participant
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "amends.toml").write_text('broker = "embedded:here.db"\ninbox = "sqlite:there.db"\n')
    async with inventory.running():
        assert (tmp_path / "here.db").is_file()
        assert (tmp_path / "there.db").is_file()
