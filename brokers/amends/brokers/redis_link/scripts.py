"""Lua scripts and commands, as a pipeline takes them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, TypeAlias

from msgspec import Struct

Word: TypeAlias = str | bytes | int

_CLOCK: Final = """
local function micros(given)
  if given ~= '' then return given end
  local time = redis.call('TIME')
  return time[1] .. string.format('%06d', time[2])
end
"""
"""Store time as text: Lua's own way of writing numbers would lose digits. `given` is that of a test's clock, or ''."""


class Call(Struct, frozen=True, eq=False, gc=False):
    """One command of a pipeline. `key` says which node it is for, `script` which script it runs."""

    key: str
    words: tuple[Any, ...]
    script: Script | None = None


class Script:
    """A script that runs as one step on one node, or not at all.

    All its keys begin with one of `keys`, and hence carry the same hash tags. `flags` are Redis' own: `no-writes`, and
    `allow-oom` for what frees memory. Without them Redis refuses to start it when it could not write.
    """

    def __init__(self, body: str, flags: str = "") -> None:
        self.text = f"#!lua{f' flags={flags}' if flags else ''}{_CLOCK}{body}"
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def read(cls, package: str, name: str, flags: str = "") -> Script:
        """The script in `name`.lua of a package."""
        return cls(files(package).joinpath(f"{name}.lua").read_text(), flags)

    def call(self, keys: Sequence[str], args: Sequence[Word]) -> Call:
        return Call(keys[0], ("EVALSHA", self.sha, len(keys), *keys, *args), self)


def command(key: str, *words: Word) -> Call:
    """A plain command; `key` is the one that it is about."""
    return Call(key, words)
