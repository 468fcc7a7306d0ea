"""Reading docker-compose.yml and the Dockerfile, as docker would."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
IMAGE = f"amends:{PROJECT['project']['version']}"
OURS = {name: service for name, service in SERVICES.items() if service["image"] == IMAGE}
"""The services that run the image of the Dockerfile."""

_VARIABLE = re.compile(r"\$\{(\w+):-([^${}]*)\}")


def variables(text: str) -> dict[str, str]:
    """The variables of a text and their defaults, from the inside out."""
    found: dict[str, str] = {}
    while match := _VARIABLE.search(text):
        found[match[1]] = match[2]
        text = text.replace(match[0], match[2])
    return found


def filled(value: Any, **given: str) -> Any:
    """A value with its variables replaced: by what is given, else by their defaults."""
    if isinstance(value, dict):
        return {key: filled(one, **given) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, **given) for one in value]
    if not isinstance(value, str):
        return value
    while match := _VARIABLE.search(value):
        value = value.replace(match[0], given.get(match[1], match[2]))
    return value


class Step(NamedTuple):
    """An instruction of the Dockerfile. `stage` counts from 0."""

    stage: int
    word: str
    text: str


def dockerfile() -> list[Step]:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    steps: list[Step] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        word, _, rest = line.partition(" ")
        steps.append(Step(sum(step.word == "FROM" for step in steps) - (word != "FROM"), word, " ".join(rest.split())))
    return steps


def arguments(service: dict[str, Any]) -> list[str]:
    """The whole command line of a service of ours."""
    (entrypoint,) = (step.text for step in dockerfile() if step.word == "ENTRYPOINT")
    given = [*service.get("entrypoint", json.loads(entrypoint)), *service["command"]]
    return [str(filled(one)) for one in given]
