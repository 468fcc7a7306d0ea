"""The Dockerfile, replayed without docker as far as that goes; and what came of it, running the services."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path
from uuid import uuid4

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from tests.deploy.compose import OURS, PROJECT, ROOT, SERVICES, arguments, dockerfile, filled
from tests.support.processes import environment
from tests.support.servers import PrivateRedis

BUILD, RUNTIME = 0, 1
STEPS = dockerfile()
LOCK = (ROOT / "deploy/requirements.txt").read_text("utf-8")
EXTRAS = re.findall(r"\w+", LOCK.partition("[")[2].partition("]")[0])
IGNORED = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]


def texts(word: str, stage: int | None = None) -> list[str]:
    return [step.text for step in STEPS if step.word == word and stage in (None, step.stage)]


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", text, re.M))


def copied() -> list[tuple[list[str], str]]:
    """What the build stage copies: sources and target."""
    return [(words[:-1], words[-1]) for words in (text.split() for text in texts("COPY", BUILD))]


def test_the_python_of_the_image_is_one_that_amends_runs_on() -> None:
    images = [text.split()[0] for text in texts("FROM")]
    assert len(images) == 2
    assert len(set(images)) == 1
    version = re.match(r"python:(\d+\.\d+)-slim-\w+$", images[0])
    assert version is not None
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(f"{version[1]}.0")
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["project"]["classifiers"]
    assert f"--python-version {version[1]} " in LOCK


def test_it_runs_as_somebody_without_rights() -> None:
    (user,) = texts("USER", RUNTIME)
    assert re.search(rf"useradd --system --uid \d{{5}} .* {user} ", texts("RUN", RUNTIME)[0])
    assert STEPS.index(next(step for step in STEPS if step.word == "USER")) > max(
        STEPS.index(step) for step in STEPS if step.word in ("RUN", "COPY")
    )


def test_what_is_copied_is_there_and_not_ignored() -> None:
    sources = [source for sources, _ in copied() for source in sources]
    assert IGNORED[0] == "*"
    let_in = [pattern.removeprefix("!") for pattern in IGNORED if pattern.startswith("!")]
    for source in sources:
        assert (ROOT / source).exists()
        assert any(fnmatch(source, pattern) for pattern in let_in), f"{source} is ignored"
    assert set(let_in) == set(sources), "what nothing copies need not be let in"
    homes = set(texts("ENV")[0].split()) & {f"ORDERS_HOME={SERVICES['customers']['environment']['ORDERS_HOME']}"}
    assert homes, "the home of the example is the one that is made for its user"


def test_the_lock_has_what_amends_needs_with_its_extras() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert {"kafka", "rabbitmq", "redis"} <= set(EXTRAS) <= set(extras)
    assert re.findall(r"--extra (\w+)", LOCK) == EXTRAS
    assert f"with {', '.join(f'`{extra}`' for extra in EXTRAS[:-1])} and `{EXTRAS[-1]}`" in " ".join(
        (ROOT / "docs/deploy.md").read_text("utf-8").split()
    )
    locked = pins(LOCK)
    for needed in [*PROJECT["project"]["dependencies"], *(one for extra in EXTRAS for one in extras[extra])]:
        requirement = Requirement(needed)
        assert requirement.specifier.contains(locked[requirement.name.lower()]), needed


def test_the_lock_has_the_versions_that_are_tested() -> None:
    tested = pins((ROOT / "requirements-dev.txt").read_text("utf-8"))
    assert {name: tested.get(name) for name in pins(LOCK)} == pins(LOCK)
    assert "://" not in LOCK


class Image:
    """The Dockerfile's build stage, replayed in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        builder = root / "builder"
        venv.create(builder, with_pip=True)
        # hatchling comes from the environment of the tests: there may be no network
        _link(builder, ["hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers"])
        self._python = builder / "bin/python"
        self.bin = root / "opt/amends/bin"

    def build(self) -> None:
        """Do what the steps say. Nothing is downloaded: the locked packages are linked from this environment."""
        source = self.root / "src"
        source.mkdir()
        for step in STEPS:
            if step.stage != BUILD:
                break
            if step.word == "COPY":
                *names, target = step.text.split()
                for name in names:
                    _copy(ROOT / name, source / target / name if target == "./" else source / target)
            elif step.word == "RUN":
                self._run(step.text, source)

    def _run(self, text: str, cwd: Path) -> None:
        if "--require-hashes -r deploy/requirements.txt" in text:
            _link(self.bin.parent, pins((cwd / "deploy/requirements.txt").read_text("utf-8")))
            return
        text = re.sub(r"(?<= )/(opt|wheels)", rf"{self.root}/\1", text)
        text = text.replace("pip wheel ", "pip wheel --no-build-isolation --no-index ")
        text = re.sub(r"^pip ", f"{self._python} -m pip -q --disable-pip-version-check ", text)
        text = re.sub(r"^python ", f"{self._python} ", text)
        done = subprocess.run(["sh", "-c", text], cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"

    def command(self, words: list[str]) -> list[str]:
        """A command as the image would run it."""
        return [str(self.bin / words[0]), *words[1:]]

    def run(self, words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(words),
            cwd=self.root,
            env={**environment(), **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _link(env: Path, packages: list[str] | dict[str, str]) -> None:
    """Make packages of this environment, and no others, importable in another one."""
    (site,) = env.rglob("site-packages")
    here = Path(sysconfig.get_path("purelib"))
    for name in packages:
        try:
            files = importlib.metadata.distribution(name).files or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or version of Python
        for entry in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if (here / entry).exists() and not (site / entry).exists():
                (site / entry).symlink_to(here / entry)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    built = Image(tmp_path_factory.mktemp("image"))
    built.build()
    return built


@pytest.mark.slow
def test_the_image_has_amends_alone_and_its_commands(image: Image) -> None:
    (entrypoint,) = texts("ENTRYPOINT")
    (command,) = texts("CMD")
    helped = image.run([*json.loads(entrypoint), *json.loads(command)])
    assert (helped.returncode, helped.stdout.startswith("Usage: amends")) == (0, True), helped
    assert image.run(["amends", "--version"]).stdout == f"amends {PROJECT['project']['version']}\n"
    place = image.run(["python", "-c", "import amends.contracts; print(amends.contracts.__file__)"]).stdout
    assert place.startswith(str(image.root / "opt/amends"))
    for name in OURS:
        words = [*arguments(SERVICES[name]), "--help"]
        told = image.run(words)
        assert (told.returncode, told.stderr) == (0, ""), words


@pytest.mark.slow
def test_the_extras_of_the_image_are_complete(image: Image) -> None:
    for broker in ("amqp://guest:guest@127.0.0.1:1/", "kafka://127.0.0.1:1?publish_timeout_s=1"):
        ended = image.run(["amends", "ping", "--json", "--broker", broker, "--store", "redis://127.0.0.1:1/0"])
        assert ended.returncode == 5, ended
        assert "pip install" not in ended.stdout + ended.stderr


@pytest.fixture
def variables(
    tmp_path: Path, rabbitmq_url: str, private_redis: Callable[..., PrivateRedis]
) -> Callable[[str], dict[str, str]]:
    """The environment of a service, with servers of this machine instead of those of the network of containers."""
    words = filled(SERVICES["redis"]["command"])
    redis = private_redis({n.removeprefix("--"): value for n, value in zip(words[1::2], words[2::2], strict=True)})
    broker = f"{rabbitmq_url}?namespace=compose-{uuid4().hex[:8]}"

    def of(name: str) -> dict[str, str]:
        given = filled(SERVICES[name]["environment"], BROKER_URL=broker)
        given = {key: value.replace("redis:6379", f"127.0.0.1:{redis.port}") for key, value in given.items()}
        assert given["AMENDS_BROKER"] == broker
        return {**given, "ORDERS_HOME": str(tmp_path)}

    return of


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.slow
def test_the_commands_of_the_services_place_orders_on_rabbitmq_and_redis(
    image: Image, variables: Callable[[str], dict[str, str]], stack: ExitStack, tmp_path: Path
) -> None:
    running: dict[str, subprocess.Popen[str]] = {}
    for name in OURS:
        if name == "customers":
            continue
        log = stack.enter_context((tmp_path / f"{name}.log").open("w"))
        running[name] = stack.enter_context(
            subprocess.Popen(
                image.command(arguments(SERVICES[name])),
                cwd=image.root,
                env={**environment(), **variables(name)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )
        )
        stack.callback(running[name].kill)
    for name in running:
        health = image.run(SERVICES[name]["healthcheck"]["test"][1:], **variables(name))
        assert health.returncode == 0, health

    words = arguments(SERVICES["customers"])
    words = [str(tmp_path) if word == SERVICES["customers"]["environment"]["ORDERS_HOME"] else word for word in words]
    placed = image.run([*words[: words.index("--count")], "--count", "60"], **variables("customers"))
    logs = {name: (tmp_path / f"{name}.log").read_text() for name in running}
    assert placed.returncode == 0, f"{placed.stdout}\n{placed.stderr}\n{logs}"
    assert "it adds up" in placed.stdout

    listed = json.loads(image.run(["amends", "count", "--json"], **variables("coordinator")).stdout)
    assert listed == {"count": 60}
    assert '"worker": 2' in logs["coordinator"], "the coordinator's two workers have both something to say"
    for process in running.values():
        process.terminate()
    assert {name: process.wait(60) for name, process in running.items()} == dict.fromkeys(running, 0)
