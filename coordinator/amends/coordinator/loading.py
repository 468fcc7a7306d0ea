"""Finding sagas and participants in the modules of a user."""

from __future__ import annotations

import difflib
import importlib
import linecache
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

from msgspec import Struct

from amends import contracts, coordinator, participants
from amends.contracts import AmendsError, UsageError
from amends.coordinator.declaration.saga import Saga
from amends.participants import Participant

HOLDS: Final = "Saga classes and Participant objects"
"""What is looked for in a module. Imported ones count too: a module may just gather what belongs together."""


class LoadError(UsageError):
    """A module, or something in it, that cannot be had. `target` is what was asked for, `problem` what is wrong."""

    def __init__(self, target: str, problem: str, remedy: str) -> None:
        self.target, self.problem, self.remedy = target, problem, remedy
        super().__init__(f"{target}: {problem}\n{remedy}")


class Parts(Struct, frozen=True):
    """What modules hold."""

    sagas: tuple[type[Saga], ...] = ()
    participants: tuple[Participant, ...] = ()


def load_parts(targets: Sequence[str], directory: Path | None = None) -> Parts:
    """All that the targets hold: `pkg.mod`, `pkg.mod:attribute`, `path/to/file.py`, or `path/to/file.py:attribute`.

    The directory (the working one) can be imported from, as with `python -m`. Raises `LoadError` for a target that
    cannot be imported, and for one that holds nothing.
    """
    _importable(directory or Path.cwd())
    sagas: dict[int, type[Saga]] = {}
    participants: dict[int, Participant] = {}
    for target in targets:
        found = 0
        for thing in _things(target):
            if _is_saga(thing):
                sagas[id(thing)] = thing
            elif isinstance(thing, Participant):
                participants[id(thing)] = thing
            else:
                continue
            found += 1
        if not found:
            raise LoadError(target, "there is nothing to run in it", f"A module may hold {HOLDS}, defined or imported")
    return Parts(tuple(sagas.values()), tuple(participants.values()))


def load_sagas(targets: Iterable[str], directory: Path | None = None) -> tuple[type[Saga], ...]:
    """The saga classes of the targets. Raises `LoadError`, also for a target without any."""
    targets = list(targets)
    for target in targets:
        if not load_parts([target], directory).sagas:
            raise LoadError(target, "there is no saga in it", "Name a module that defines or imports a Saga class")
    return load_parts(targets, directory).sagas


def load_saga(target: str, directory: Path | None = None) -> type[Saga]:
    """The one saga of a target. Raises `LoadError`, also when there are several."""
    sagas = load_sagas([target], directory)
    if len(sagas) > 1:
        names = ", ".join(f"{target}:{saga.__name__}" for saga in sagas)
        raise LoadError(target, f"there are {len(sagas)} sagas in it", f"Name one: {names}")
    return sagas[0]


def _is_saga(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, Saga) and thing.__definition__ is not None


def _importable(folder: Path) -> None:
    path = str(folder.resolve())
    if path not in sys.path:
        sys.path.insert(0, path)


def _things(target: str) -> Iterator[Any]:
    place, attributes = _split(target)
    module = _import(target, place)
    if not attributes:
        yield from vars(module).values()
        return
    thing: Any = module
    for name in attributes.split("."):
        if not hasattr(thing, name):
            raise LoadError(target, f"{place} has no {name!r}", _instead(name, module))
        thing = getattr(thing, name)
    if not _is_saga(thing) and not isinstance(thing, Participant):
        raise LoadError(target, f"{attributes} is {_what(thing)}", f"Name one of its {HOLDS}")
    yield thing


def _what(thing: Any) -> str:
    if isinstance(thing, type) and issubclass(thing, Saga):
        return "an abstract saga"
    return f"a {type(thing).__name__}, no saga and no participant"


def _instead(name: str, module: ModuleType) -> str:
    there = [key for key, thing in vars(module).items() if _is_saga(thing) or isinstance(thing, Participant)]
    close = difflib.get_close_matches(name, there, 1)
    return f"Did you mean {close[0]}?" if close else f"It holds {', '.join(there) or f'none of: {HOLDS}'}"


def _split(target: str) -> tuple[str, str]:
    """A target as module and attribute. A drive letter of Windows is no module."""
    place, colon, attributes = target.rpartition(":")
    if not colon or "/" in attributes or "\\" in attributes:
        return target, ""
    return place, attributes


def _import(target: str, place: str) -> ModuleType:
    path = Path(place)
    file: Path | None = None
    if place.endswith(".py") or "/" in place or "\\" in place:
        if not path.exists():
            raise LoadError(target, f"there is no file {place}", f"Looked from {Path.cwd()}")
        file = (path / "__init__.py" if path.is_dir() else path).resolve()
        root, place = _dotted(file)
        _importable(root)
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise _failed(target, error) from error
        remedy = f"Give a module that can be imported from {Path.cwd()}, or the path of a .py file"
        raise LoadError(target, f"there is no module {error.name!r}", remedy) from None
    except (Exception, SystemExit) as error:
        raise _failed(target, error) from error
    if file is not None and Path(getattr(module, "__file__", None) or "").resolve() != file:
        remedy = f"Another module is called {place}: rename the file, or put it into a package"
        raise LoadError(target, f"importing {place!r} gives {module!r}", remedy)
    return module


def _dotted(file: Path) -> tuple[Path, str]:
    """The folder to import a file from, and its name there: the folder above its outermost package."""
    parts = [] if file.name == "__init__.py" else [file.stem]
    root = file.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if not all(part.isidentifier() for part in parts) or not parts:
        raise LoadError(str(file), "its name is no module name", "Use letters, digits and _ only")
    return root, ".".join(parts)


def _failed(target: str, error: BaseException) -> LoadError:
    """A module of the user that raised while being imported, told by the user's own line."""
    if isinstance(error, SyntaxError):
        where, line = f"{error.filename}, line {error.lineno}", (error.text or "").strip()
        told = f"SyntaxError: {error.msg}"
    else:
        where, line = _own_line(error.__traceback__)
        told = str(error) if isinstance(error, AmendsError) else f"{type(error).__name__}: {error}"
    code = f"\n    {line}" if line else ""
    return LoadError(target, f"cannot be imported: {told}", f"  in {where}{code}\nMend that line and try again")


def _own_line(trace: TracebackType | None) -> tuple[str, str]:
    """The innermost line that is the user's, rather than ours or that of a library."""
    lines = []
    while trace is not None:
        lines.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    lines = [line for line in lines if not line[0].startswith(("<", *_OURS))]
    own = [line for line in lines if not line[0].startswith(_LIBRARIES)] or lines
    if not own:
        return "an unknown place", ""
    file, number = own[-1]
    return f"{file}, line {number}", linecache.getline(file, number).strip()


_OURS: Final = tuple(str(Path(part.__path__[0])) for part in (contracts, participants, coordinator))
_LIBRARIES: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
