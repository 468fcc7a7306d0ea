"""The documentation says what is so: its programs run, its commands print what it shows, its links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, get_overloads

import msgspec
import pytest
import typer.main
from tests.docs.pages import PAGES, ROOT, anchors, blocks, commands, is_shown, prose, write_files
from tests.support.processes import environment

from amends.brokers import EmbeddedBroker, ShardMap
from amends.brokers.settings import SPANS, Settings
from amends.coordinator import Coordinator, CoordinatorConfig, Policy, Retry, SagaClient, step
from amends.coordinator.cli import build
from amends.coordinator.cli.errors import EXIT_CODES
from amends.participants import Participant

PROGRAMS = [page for page in PAGES if any(block.file for block in blocks(page))]
TRIED = [page for page in PAGES if commands(page)]
LINKS = re.compile(r"\[([^]]*)\]\(([^)\s]+)\)")
TEXT = "\n".join(page.read_text("utf-8") for page in PAGES)

of_every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
of_every_program = pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.stem)


def variables() -> dict[str, str]:
    """What commands of a page see: our own Python first, and nothing of the pytest that runs this."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    clean = environment(PATH=path, PYTEST_ADDOPTS="-p no:asyncio -p no:cacheprovider")
    return {name: value for name, value in clean.items() if name == "PYTEST_ADDOPTS" or not name.startswith("PYTEST")}


# programs and commands


@of_every_page
def test_python_and_toml_can_be_read(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, f"{page.name}, line {block.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if block.language == "toml":
            assert set(tomllib.loads(block.text)) <= set(Settings.__struct_fields__)


@pytest.mark.slow
@of_every_program
def test_programs_can_be_imported(page: Path, tmp_path: Path) -> None:
    files = write_files(page, tmp_path)
    modules = [".".join(file.relative_to(tmp_path).with_suffix("").parts) for file in files]
    probe = f"import {', '.join(modules)}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", probe],
        cwd=tmp_path, env=variables(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def checker_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.slow
@of_every_program
def test_programs_are_typed(page: Path, tmp_path: Path, checker_cache: Path) -> None:
    write_files(page, tmp_path)
    mypy = str(Path(sys.executable).with_name("mypy"))
    options = ["--strict", "--explicit-package-bases", "--no-error-summary", "--cache-dir", str(checker_cache)]
    done = subprocess.run(
        [mypy, *options, "."],
        cwd=tmp_path, env=variables(), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("page", TRIED, ids=lambda page: page.stem)
def test_commands_print_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_files(page, folder)
    tried = commands(page)
    script = tmp_path / "script.sh"
    script.write_text("".join(f"{command.text}\nprintf '\\036%s\\036' $?\n" for command in tried), "utf-8")
    with subprocess.Popen(
        ["sh", script], cwd=folder, env=variables(), text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as shell:  # fmt: skip
        try:
            said, _ = shell.communicate(timeout=180)
        finally:
            # what the page started and did not stop
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    answers = said.split("\036")
    for command, printed, code in zip(tried, answers[::2], answers[1::2], strict=False):
        where = f"{page.name}, line {command.line}: {command.text}"
        assert code == "0", f"{where}\nended with {code}:\n{printed}"
        assert is_shown(command.prints, printed.splitlines()), f"{where}\nprinted:\n{printed}"
    assert len(answers) == 2 * len(tried) + 1, said


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a   b"], ["a b "], True),
        (["at 2026-01-01 10:00:00Z"], ["at 2027-02-02 11:11:11Z"], True),
        (["a", "…", "c"], ["a", "b", "b", "c"], True),
        (["…", "c"], ["c"], True),
        (["a", "c"], ["a", "b", "c"], False),
        (["a"], ["a", "b"], False),
        (["b"], ["a", "b"], False),
        (["a", "…", "d"], ["a", "b", "c"], False),
        ([], ["a"], False),
    ],
)
def test_what_is_shown_is_compared_line_by_line(shown: list[str], printed: list[str], same: bool) -> None:
    assert is_shown(shown, printed) is same


# links


@of_every_page
def test_links_lead_somewhere(page: Path) -> None:
    for text, target in LINKS.findall(prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: [{text}]({target})"
        if anchor:
            assert anchor in anchors(linked), f"{page.name}: [{text}]({target})"


@of_every_page
def test_linked_tests_exist(page: Path) -> None:
    for name, target in LINKS.findall(prose(page)):
        if name.startswith("test_"):
            source = (page.parent / target).read_text("utf-8")
            assert re.search(rf"\bdef {name}\(", source), f"{page.name}: {target} has no {name}"


def test_the_guarantees_are_shown_by_tests() -> None:
    rows = re.findall(r"^\| (?!crash|rule|what|-)(.*) \|$", (ROOT / "docs/guarantees.md").read_text("utf-8"), re.M)
    assert len(rows) > 30
    assert [row for row in rows if "[test_" not in row] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = {target for _, target in LINKS.findall(prose(ROOT / "README.md"))}
    assert {f"docs/{page.name}" for page in PAGES if page.parent.name == "docs"} <= linked


def test_files_that_the_layout_names_exist() -> None:
    named = re.findall(r"`([a-z_]+/[a-z_/]+(?:\.py|/))`", (ROOT / "docs/layout.md").read_text("utf-8"))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == ["amends/__init__.py"], "which must not exist"


# what the code says too


@pytest.mark.parametrize("module", ["amends.contracts", "amends.coordinator", "amends.participants"])
def test_every_public_name_is_explained(module: str) -> None:
    source = Path(inspect.getfile(importlib.import_module(module))).read_text("utf-8")
    names = re.findall(r"^from .* import \w+ as (\w+)$", source, re.M)
    assert names
    assert [name for name in names if not re.search(rf"\b{name}\b", TEXT)] == []


def test_the_defaults_are_these() -> None:
    known: dict[str, Any] = {
        thing.__name__: thing
        for thing in (CoordinatorConfig, Participant, Policy, Retry, SagaClient, timedelta)
    }  # fmt: skip
    known["step"] = get_overloads(step)[-1]
    told = re.findall(r"^\|[^|]*\| `(\w+)\.(\w+) = (.*?)`.*\|$", (ROOT / "docs/concepts.md").read_text("utf-8"), re.M)
    assert len(told) > 15
    for owner, option, value in told:
        default = inspect.signature(known[owner]).parameters[option].default
        assert default == eval(value, known), f"{owner}.{option} is {default!r}"
    policies = {(owner, option) for owner, option, _ in told}
    assert {("Policy", field) for field in Policy.__struct_fields__} - policies == {("Policy", "codec")}
    assert {("CoordinatorConfig", field) for field in CoordinatorConfig.__struct_fields__} <= policies


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    assert ShardMap().shards == 8
    assert "There are 8 shards" in TEXT
    assert inspect.signature(EmbeddedBroker.open).parameters["delivery_limit"].default == 50
    assert "handed out 50 times" in TEXT
    assert list(inspect.signature(Coordinator).parameters) == ["sagas", "broker", "store", "policy", "config"]


def test_every_command_is_on_its_page() -> None:
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    app = typer.main.get_command(build())
    assert isinstance(app, typer.core.TyperGroup)
    for name, one in app.commands.items():
        for full in [f"{name} {sub}" for sub in one.commands] if isinstance(one, typer.core.TyperGroup) else [name]:
            assert f"`amends {full}" in page
    there = page.partition("## Not in this version")[0]
    assert set(re.findall(r"`amends ([a-z]+)", there)) <= set(app.commands)


def test_exit_codes_are_on_their_page() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", (ROOT / "docs/cli.md").read_text("utf-8"), re.M)
    assert {int(code): meaning for code, meaning in rows} == {int(code): told for code, told in EXIT_CODES.items()}


def test_every_setting_is_on_its_page() -> None:
    page = (ROOT / "docs/concepts.md").read_text("utf-8")
    for field in msgspec.structs.fields(Settings):
        assert f"`AMENDS_{field.name.upper()}`" in page
        assert f"`--{field.name.replace('_', '-')} " in page or field.name in SPANS, "which have no option"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"`make (\w+)`", TEXT))
    assert {"demo", "test"} <= targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.M)] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
