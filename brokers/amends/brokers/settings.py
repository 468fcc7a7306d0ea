"""What amends is told from outside: which broker, store and inbox, how many processes, and how to write its log.

A value is taken from the first place that has one: the arguments, `AMENDS_…` variables, a file (`amends.toml`, or
`[tool.amends]` in `pyproject.toml`) found upwards from the working directory, the defaults.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from amends.brokers.retention import Kept, Retention, read_span
from amends.contracts import UsageError

PREFIX: Final = "AMENDS_"
FILE: Final = "amends.toml"
PROJECT_FILE: Final = "pyproject.toml"
SPANS: Final = ("retention", "ledger_retention", "inbox_retention", "message_age")
"""Settings that are lengths of time, or forever."""

DATABASE: Final = Path(".amends", "amends.db")
"""Where the embedded broker and store live by default: below the settings file's folder, or the working directory."""

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


_KEPT: Final = Retention()


class Settings(Struct, frozen=True, kw_only=True):
    """The settings, in the words that arguments, variables (`AMENDS_BROKER`, …) and files use.

    `retention`, `ledger_retention`, `inbox_retention` and `message_age` are those of `Retention`.
    `broker`, `store` and `inbox` are URLs; without `inbox`, that of a participant goes with the broker. `log` is how
    the log is written, `log_level` how much of it. `timeout` is how many seconds to wait for a coordinator's answer,
    `workers` how many processes `amends run` is.
    """

    broker: str
    store: str
    inbox: str | None = None
    log: LogFormat = "console"
    log_level: LogLevel = "info"
    timeout: Annotated[float, Meta(gt=0)] = 30.0
    workers: Annotated[int, Meta(ge=1, le=1024)] = 1
    retention: Kept = _KEPT.sagas
    ledger_retention: Kept = _KEPT.ledger
    inbox_retention: Kept = _KEPT.inbox
    message_age: Kept = _KEPT.messages

    @property
    def kept(self) -> Retention:
        """Raises `UsageError` for times that do not go together."""
        if self.message_age is None:
            raise UsageError("message_age=forever cannot be: ids and effects would be kept for ever too. Write 14d")
        return Retention(
            sagas=self.retention, ledger=self.ledger_retention, inbox=self.inbox_retention, messages=self.message_age
        )


class Found(Struct, frozen=True):
    """Settings and where each of them comes from: `--broker`, `AMENDS_BROKER`, the path of a file, or `default`."""

    settings: Settings
    sources: Mapping[str, str]


def find_settings(
    arguments: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Found:
    """The settings that hold in a directory (the working one). Arguments that are None count as not given.

    Raises `UsageError` naming the place for a key that is none, and for a value that cannot be one.
    """
    directory = (directory or Path.cwd()).resolve()
    file = _find_file(directory)
    given = [
        *((key, value, f"--{key.replace('_', '-')}") for key, value in (arguments or {}).items() if value is not None),
        *_variables(os.environ if environ is None else environ),
        *(() if file is None else _read_file(file)),
    ]
    values: dict[str, Any] = {}
    sources = dict.fromkeys(Settings.__struct_fields__, "default")
    for key, value, place in given:
        if key not in values:
            values[key] = _convert(key, value, place)
            sources[key] = place
    database = (directory if file is None else file.parent) / DATABASE
    values.setdefault("broker", f"embedded:{database}")
    values.setdefault("store", f"sqlite:{database}")
    return Found(Settings(**values), sources)


_Given: TypeAlias = tuple[str, Any, str]
"""A key, its value, and the place it stands in."""


def _find_file(directory: Path) -> Path | None:
    for folder in (directory, *directory.parents):
        if (folder / FILE).is_file():
            return folder / FILE
        project = folder / PROJECT_FILE
        if project.is_file() and "amends" in _load(project).get("tool", {}):
            return project
    return None


def _load(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None


def _read_file(file: Path) -> Iterator[_Given]:
    table = _load(file)
    if file.name == PROJECT_FILE:
        table = table["tool"]["amends"]
    if not isinstance(table, dict):
        raise UsageError(f"{file}: tool.amends is no table. Write [tool.amends]")
    for key, value in table.items():
        if key not in Settings.__struct_fields__:
            raise UsageError(f"{file}: there is no setting {key!r}. {_did_you_mean(key, Settings.__struct_fields__)}")
        is_url = key in ("broker", "store", "inbox") and isinstance(value, str)
        yield key, _beside(file.parent, value) if is_url else value, str(file)


def _did_you_mean(key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}"


def _variables(environ: Mapping[str, str]) -> Iterator[_Given]:
    """The variables that are settings. One that looks misspelt is refused, others are somebody else's."""
    keys = {PREFIX + key.upper(): key for key in Settings.__struct_fields__}
    for name, text in environ.items():
        if name in keys and text:
            yield keys[name], text, name
        elif name.startswith(PREFIX) and difflib.get_close_matches(name, keys, 1, 0.85) and name not in keys:
            raise UsageError(f"{name} is no setting. {_did_you_mean(name, tuple(keys))}")


def _convert(key: str, value: Any, place: str) -> Any:
    """A value as its setting's type; text stands for numbers too, as variables have nothing else."""
    if key in SPANS:
        return value if isinstance(value, timedelta) else read_span(value, f"{place}: the {key}")
    try:
        return msgspec.convert(value, _TYPES[key], strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{place}: {value!r} cannot be the {key}: {error}") from None


def _beside(folder: Path, url: str) -> str:
    """A URL of a file made absolute, as it stands in a file in `folder`."""
    path = file_of(url)
    if path is None or path.is_absolute():
        return url
    return f"{url.partition(':')[0]}:{folder / path}"


def file_of(url: str) -> Path | None:
    """The file that an `embedded:` or `sqlite:` URL names, or None."""
    scheme, _, rest = url.partition(":")
    if scheme.lower() not in ("embedded", "sqlite") or not rest:
        return None
    if rest.startswith("//"):
        rest = "/" + rest[2:].partition("/")[2]
    return Path(rest)


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if not separator or not at or ":" not in user:
        return url
    return f"{scheme}://{user.partition(':')[0]}:***@{host}{slash}{path}"


_TYPES: Final[dict[str, Any]] = {field.name: field.type for field in msgspec.structs.fields(Settings)}
