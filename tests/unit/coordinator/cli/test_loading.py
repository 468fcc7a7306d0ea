"""Finding sagas and participants in the modules of a user."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from tests.support.processes import SHOP

from amends.coordinator.loading import LoadError, load_parts, load_saga, load_sagas

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def name() -> str:
    """A module name that no other test has imported."""
    return f"loaded_{next(_numbers)}"


SAGA = """
from amends.coordinator import Saga

class {name}(Saga):
    x: int
"""


def test_a_module_gives_its_sagas_and_participants(tmp_path: Path) -> None:
    parts = load_parts([SHOP], tmp_path)
    assert [saga.__name__ for saga in parts.sagas] == ["PlaceOrder"]
    assert [participant.service for participant in parts.participants] == ["inventory", "payments", "shipping"]


def test_what_a_module_imports_counts_too_and_once(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}_a.py").write_text(SAGA.format(name="A"))
    (tmp_path / f"{name}_b.py").write_text(f"from {name}_a import A\n" + SAGA.format(name="B"))
    parts = load_parts([f"{name}_a", f"{name}_b"], tmp_path)
    assert [saga.__name__ for saga in parts.sagas] == ["A", "B"]


def test_abstract_sagas_are_passed_by(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text(
        "from amends.coordinator import Saga\nclass Base(Saga, abstract=True): ...\nclass A(Base): ..."
    )
    assert [saga.__name__ for saga in load_parts([name], tmp_path).sagas] == ["A"]
    with pytest.raises(LoadError, match="Base is an abstract saga"):
        load_parts([f"{name}:Base"], tmp_path)


def test_one_thing_of_a_module_can_be_named(tmp_path: Path) -> None:
    parts = load_parts([f"{SHOP}:payments"], tmp_path)
    assert (parts.sagas, [p.service for p in parts.participants]) == ((), ["payments"])


def test_a_file_in_a_package_is_imported_as_part_of_it(tmp_path: Path, name: str) -> None:
    package = tmp_path / "src" / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text(SAGA.format(name="A"))
    (package / "flows.py").write_text("from .base import A")
    saga = load_saga(str(package / "flows.py"), tmp_path)
    assert saga.__module__ == f"{name}.base"
    assert load_saga(str(package / "base.py"), tmp_path) is saga


def test_a_package_can_be_named_by_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(SAGA.format(name="A"))
    assert load_saga(f"{tmp_path / name}", tmp_path).__module__ == name


def test_a_file_that_is_hidden_by_another_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(SAGA.format(name="A"))
    with pytest.raises(LoadError, match="Another module is called json: rename the file"):
        load_parts([str(tmp_path / "json.py")], tmp_path)


def test_a_module_with_nothing_in_it_is_refused_with_what_it_may_hold(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("x = 1")
    with pytest.raises(LoadError, match="nothing to run in it\nA module may hold Saga classes and Participant objects"):
        load_parts([name], tmp_path)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("no_such_module", "there is no module 'no_such_module'"),
        ("amends.no_such", r"there is no module 'amends\.no_such'"),
        ("./nowhere.py", r"there is no file \./nowhere\.py"),
        (f"{SHOP}:PlaceOrdr", r"has no 'PlaceOrdr'\nDid you mean PlaceOrder\?"),
        (f"{SHOP}:zzz", "It holds PlaceOrder, inventory, payments, shipping"),
        (f"{SHOP}:SHOP.x", "has no 'SHOP'"),
        (f"{SHOP}:timedelta", "timedelta is a type, no saga and no participant"),
    ],
)
def test_a_target_that_is_not_there_is_refused(tmp_path: Path, target: str, problem: str) -> None:
    with pytest.raises(LoadError, match=problem):
        load_parts([target], tmp_path)


@pytest.mark.parametrize(
    ("source", "problem", "line"),
    [
        ("\nx = undefined", "NameError: name 'undefined' is not defined", "line 2\n    x = undefined"),
        ("import no_such_thing", "No module named 'no_such_thing'", "line 1\n    import no_such_thing"),
        ("import json\njson.loads('{')", "JSONDecodeError", r"line 2\n    json\.loads"),
        ("def (", "SyntaxError: invalid syntax", r"line 1\n    def \("),
        ("import sys\nsys.exit(3)", "SystemExit: 3", r"line 2\n    sys\.exit\(3\)"),
        (
            "from amends.coordinator import Saga, step\nclass A(Saga):\n  @step\n  def a(self) -> int: ...",
            "A cannot be a saga",
            "line 2\n    class A",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_by_the_users_own_line(
    tmp_path: Path, name: str, source: str, problem: str, line: str
) -> None:
    (tmp_path / f"{name}.py").write_text(source)
    with pytest.raises(LoadError, match=problem) as raised:
        load_parts([name], tmp_path)
    assert raised.match(f"in {tmp_path / name}\\.py, {line}")


def test_one_saga_is_wanted_and_several_are_there(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text(SAGA.format(name="A") + SAGA.format(name="B"))
    with pytest.raises(LoadError, match=f"there are 2 sagas in it\nName one: {name}:A, {name}:B"):
        load_saga(name, tmp_path)
    assert load_saga(f"{name}:B", tmp_path).__name__ == "B"


def test_a_saga_is_wanted_and_only_participants_are_there(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="there is no saga in it"):
        load_sagas([f"{SHOP}:inventory"], tmp_path)
