"""Where settings come from, and which place wins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from amends.brokers.connect import connect_broker
from amends.brokers.settings import Found, file_of, find_settings, without_password
from amends.contracts import UsageError
from amends.coordinator import Coordinator, Refused, SagaClient
from amends.coordinator.stores import connect_store


def find(directory: Path, arguments: Mapping[str, object] | None = None, **environ: str) -> Found:
    return find_settings(arguments, environ=environ, directory=directory)


@pytest.mark.parametrize(
    ("argument", "variable", "file", "expected", "source"),
    [
        ("json", "console", "console", "json", "--log"),
        ("json", None, None, "json", "--log"),
        ("json", None, "console", "json", "--log"),
        (None, "json", "console", "json", "AMENDS_LOG"),
        (None, "json", None, "json", "AMENDS_LOG"),
        (None, "", "json", "json", "amends.toml"),
        (None, None, "json", "json", "amends.toml"),
        (None, None, None, "console", "default"),
    ],
)
def test_arguments_come_before_variables_before_files_before_defaults(
    tmp_path: Path, argument: str | None, variable: str | None, file: str | None, expected: str, source: str
) -> None:
    if file is not None:
        (tmp_path / "amends.toml").write_text(f'log = "{file}"')
    found = find(tmp_path, {"log": argument}, **({} if variable is None else {"AMENDS_LOG": variable}))
    assert found.settings.log == expected
    assert found.sources["log"] == (str(tmp_path / "amends.toml") if source == "amends.toml" else source)


def test_each_setting_is_looked_up_for_itself(tmp_path: Path) -> None:
    (tmp_path / "amends.toml").write_text('log = "json"\ntimeout = 5')
    found = find(tmp_path, {"log_level": "debug"}, AMENDS_TIMEOUT="2.5")
    assert (found.settings.log, found.settings.log_level, found.settings.timeout) == ("json", "debug", 2.5)
    assert found.sources["log_level"] == "--log-level"
    assert found.sources["broker"] == "default"


def test_files_are_looked_for_upwards_and_the_nearest_wins(tmp_path: Path) -> None:
    below = tmp_path / "services" / "shop"
    below.mkdir(parents=True)
    (tmp_path / "amends.toml").write_text('log = "json"')
    assert find(below).settings.log == "json"
    (tmp_path / "services" / "pyproject.toml").write_text("[tool.amends]\ntimeout = 7")
    found = find(below)
    assert (found.settings.log, found.settings.timeout) == ("console", 7)


def test_amends_toml_comes_before_pyproject_toml_of_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.amends]\ntimeout = 7")
    assert find(tmp_path).settings.timeout == 7
    (tmp_path / "amends.toml").write_text("timeout = 8")
    assert find(tmp_path).settings.timeout == 8


def test_a_pyproject_toml_that_says_nothing_of_amends_is_passed_by(tmp_path: Path) -> None:
    below = tmp_path / "service"
    below.mkdir()
    (tmp_path / "amends.toml").write_text("timeout = 8")
    (below / "pyproject.toml").write_text("[tool.other]\nx = 1")
    assert find(below).settings.timeout == 8


def test_by_default_broker_and_store_are_one_file_of_the_working_directory(tmp_path: Path) -> None:
    settings = find(tmp_path).settings
    assert file_of(settings.broker) == file_of(settings.store) == tmp_path / ".amends" / "amends.db"


def test_by_default_broker_and_store_are_beside_the_settings_file(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / "amends.toml").write_text("")
    assert file_of(find(below).settings.store) == tmp_path / ".amends" / "amends.db"


async def test_a_folder_with_odd_characters_still_holds_one_file_for_broker_and_store(tmp_path: Path) -> None:
    folder = tmp_path / "my shop 100%25#1"
    folder.mkdir()
    settings = find(folder).settings
    broker, store = await connect_broker(settings.broker), await connect_store(settings.store)
    await store.close()
    await broker.close()
    assert [file.name for file in folder.glob(".amends/*.db")] == ["amends.db"]
    assert os.listdir(tmp_path) == [folder.name]


async def test_coordinators_and_clients_that_are_told_nothing_follow_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "amends.toml").write_text('broker = "embedded:other.db"')
    monkeypatch.setenv("AMENDS_STORE", f"sqlite:{tmp_path}/third.db")
    monkeypatch.delenv("AMENDS_BROKER", raising=False)
    monkeypatch.chdir(tmp_path)
    async with SagaClient() as client:
        assert await client.count() == 0
    assert sorted(name for name in os.listdir(tmp_path) if name.endswith(".db")) == ["other.db", "third.db"]
    async with Coordinator([]).running(), SagaClient() as client:
        with pytest.raises(Refused, match="saga lost is not loaded here"):
            await client.start("lost", {}, id="x")
    assert not (tmp_path / ".amends").exists()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sqlite:data/x.db", "sqlite:{folder}/data/x.db"),
        ("embedded:x.db", "embedded:{folder}/x.db"),
        ("sqlite:///var/x.db", "sqlite:///var/x.db"),
        ("memory:", "memory:"),
        ("redis://host/0", "redis://host/0"),
    ],
)
def test_files_named_in_a_settings_file_are_relative_to_it(tmp_path: Path, written: str, meant: str) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / "amends.toml").write_text(f'store = "{written}"')
    assert find(below).settings.store == meant.format(folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "text"), [("amends.toml", 'brokr = "memory:"'), ("pyproject.toml", '[tool.amends]\nbrokr = "memory:"')]
)
def test_an_unknown_key_in_a_file_is_refused_with_the_one_that_was_meant(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=rf"{name}: there is no setting 'brokr'\. Did you mean broker\?"):
        find(tmp_path)


def test_a_misspelt_variable_is_refused_and_somebody_elses_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"AMENDS_BROKR is no setting\. Did you mean AMENDS_BROKER\?"):
        find(tmp_path, AMENDS_BROKR="memory:")
    assert find(tmp_path, AMENDS_CI_BUCKET="x").sources["broker"] == "default"


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"AMENDS_TIMEOUT": "soon"}, r"AMENDS_TIMEOUT: 'soon' cannot be the timeout: Expected `float`"),
        ({"AMENDS_TIMEOUT": "0"}, r"AMENDS_TIMEOUT: '0' cannot be the timeout: Expected `float` > 0"),
        ({"AMENDS_WORKERS": "0"}, r"AMENDS_WORKERS: '0' cannot be the workers: Expected `int` >= 1"),
        ({"AMENDS_WORKRES": "2"}, r"AMENDS_WORKRES is no setting. Did you mean AMENDS_WORKERS"),
        ({"AMENDS_LOG": "xml"}, r"AMENDS_LOG: 'xml' cannot be the log: Invalid enum value 'xml'"),
    ],
)
def test_a_value_that_cannot_be_one_is_refused_with_its_place(
    tmp_path: Path, environ: dict[str, str], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        find(tmp_path, None, **environ)


@pytest.mark.parametrize("text", ["broker = ", "[tool]\namends = 3"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=r"pyproject\.toml"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://shop:secret@host:5672/vhost", "amqp://shop:***@host:5672/vhost"),
        ("redis://:secret@host", "redis://:***@host"),
        ("amqp://shop@host/x:y@z", "amqp://shop@host/x:y@z"),
        ("sqlite:/tmp/x.db", "sqlite:/tmp/x.db"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
