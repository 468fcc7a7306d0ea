"""The messages that services exchange: commands and their replies, compensations, events, signals."""

from __future__ import annotations

import difflib
import sys
import typing
from typing import TYPE_CHECKING, Any, ClassVar, Generic, get_args, get_origin

import msgspec
from msgspec import Struct, StructMeta
from typing_extensions import TypeVar, dataclass_transform

from amends.contracts.errors import ContractError
from amends.contracts.names import kebab

TYPE_FIELD = "$type"
"""The field that carries a message's tag when it stands inside other data, such as a union in a saga's state."""

_OURS = ("service", "version", "name", "abstract")
_MSGSPEC = ("frozen", "kw_only", "rename", "forbid_unknown_fields", "omit_defaults", "eq", "order", "gc")


class MessageMeta(StructMeta):
    """Takes the class keywords of amends off, gives the rest to msgspec, and checks the contract.

    `name=` is the stable name on the wire (by default made from the class name), `version=` its major version,
    `service=` the participant that handles it, `abstract=` says that it is only a base for others.
    """

    __service__: str | None
    __version__: int
    __tag__: str
    __abstract__: bool

    if TYPE_CHECKING:
        # pyright checks class keywords against this signature, so they are spelt out

        def __new__(
            mcls,
            class_name: str,
            bases: tuple[type, ...],
            namespace: dict[str, Any],
            /,
            *,
            service: str | None = None,
            version: int = 1,
            name: str | None = None,
            abstract: bool = False,
            frozen: bool = True,
            kw_only: bool = True,
            rename: Any = None,
        ) -> MessageMeta: ...

    else:

        def __new__(mcls, class_name, bases, namespace, /, **keywords):
            return _make_message(mcls, class_name, bases, namespace, **keywords)


def _make_message(
    mcls: type[MessageMeta],
    class_name: str,
    bases: tuple[type, ...],
    namespace: dict[str, Any],
    /,
    *,
    service: str | None = None,
    version: int = 1,
    name: str | None = None,
    abstract: bool = False,
    **options: Any,
) -> MessageMeta:
    for keyword in options:
        if keyword not in _MSGSPEC:
            close = difflib.get_close_matches(keyword, [*_OURS, *_MSGSPEC], 1)
            remedy = f"Did you mean {close[0]}=?" if close else f"Known: {', '.join(f'{k}=' for k in _OURS)}"
            raise ContractError(class_name, f"unknown class keyword {keyword!r}", remedy)
    if not isinstance(version, int) or version < 1:
        raise ContractError(class_name, f"version={version!r} is no major version", "Write version=1, version=2, …")
    options.setdefault("kw_only", True)
    ours = namespace.get("__module__") == __name__
    original = namespace.get("__orig_bases__", bases)
    if not ours:
        service = service or _inherited_service(bases, original)
        options.setdefault("tag", stable_tag(name or kebab(class_name), version, service))
        options["tag_field"] = TYPE_FIELD
    cls = StructMeta.__new__(mcls, class_name, bases, namespace, **options)
    cls.__service__ = service
    cls.__version__ = version
    cls.__abstract__ = abstract
    cls.__tag__ = options.get("tag", class_name)
    if not ours:
        frame = sys._getframe(2)
        _check(cls, original, dict(frame.f_locals) if frame.f_locals is not frame.f_globals else {}, abstract)
    return cls


def stable_tag(name: str, version: int, service: str | None = None) -> str:
    """`inventory.reserve-stock.v1`: what a type is called on the wire."""
    return f"{service}.{name}.v{version}" if service else f"{name}.v{version}"


def _inherited_service(bases: tuple[type, ...], original: tuple[Any, ...]) -> str | None:
    for base in bases:
        if service := getattr(base, "__service__", None):
            return str(service)
    undone = base_arguments(original, Compensation)
    return getattr(undone[0], "__service__", None) if undone else None


def base_arguments(bases: tuple[Any, ...], origin: type) -> tuple[Any, ...]:
    """The arguments given to `origin` in `class X(origin[A, B])`."""
    for base in bases:
        found = get_origin(base)
        if isinstance(found, type) and issubclass(found, origin):
            return get_args(base)
    return ()


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Message(Struct, metaclass=MessageMeta, frozen=True):
    """What all messages have in common: frozen, keyword-only, tolerant of unknown fields when read."""

    if TYPE_CHECKING:

        def __init_subclass__(
            cls,
            *,
            service: str | None = None,
            version: int = 1,
            name: str | None = None,
            abstract: bool = False,
            frozen: bool = True,
            kw_only: bool = True,
            rename: Any = None,
        ) -> None: ...


class Reply(Message, frozen=True):
    """What a participant answers when it did what it was asked."""


class Rejection(Message, frozen=True):
    """What a participant answers when it did nothing: a business "no". Nobody retries it."""


class Event(Message, frozen=True):
    """Something that happened, in the past tense. Events are facts: they are published, never undone."""

    if TYPE_CHECKING:

        def __awaited__(self) -> typing.Self: ...


class Signal(Message, frozen=True):
    """A word from outside to one saga, such as an approval."""

    if TYPE_CHECKING:

        def __awaited__(self) -> typing.Self: ...


R_co = TypeVar("R_co", bound="Reply | None", covariant=True)
X_co = TypeVar("X_co", bound=Rejection, covariant=True, default=Rejection)


class Command(Message, Generic[R_co, X_co], frozen=True):
    """Asks `service` for one local transaction. `R` is the reply that says it is done, `X` the rejection.

    `Command[None]` is answered by "done" alone; a union of replies is allowed. The rejection may be left out.
    """

    __replies__: ClassVar[tuple[type[Reply], ...]] = ()
    __rejections__: ClassVar[tuple[type[Rejection], ...]] = ()

    if TYPE_CHECKING:
        # phantoms: checkers find R and X by these, nobody calls them
        def __yields__(self) -> R_co: ...
        def __rejects__(self) -> X_co: ...


C_co = TypeVar("C_co", bound=Command[Any, Any], covariant=True)


class Compensation(Message, Generic[C_co], frozen=True):
    """Undoes command `C`, at the same service."""

    __command__: ClassVar[type[Command[Any, Any]]]

    if TYPE_CHECKING:

        def __undoes__(self) -> C_co: ...


def _check(cls: Any, original: tuple[Any, ...], local_names: dict[str, Any], abstract: bool) -> None:
    if abstract or cls.__dict__.get("__parameters__"):
        return
    if issubclass(cls, Command):
        _check_command(cls, original, local_names)
    elif issubclass(cls, Compensation):
        _check_compensation(cls, original)


def _check_command(cls: Any, original: tuple[Any, ...], local_names: dict[str, Any]) -> None:
    name = cls.__qualname__.rpartition("<locals>.")[2]
    arguments = base_arguments(original, Command)
    if arguments:
        arguments = tuple(_resolve(a, cls, local_names) for a in arguments)
        cls.__replies__ = _members(name, arguments[0], Reply)
        if len(arguments) > 1:
            cls.__rejections__ = _members(name, arguments[1], Rejection)
    elif not any("__replies__" in vars(base) for base in cls.__mro__ if base is not Command):
        raise ContractError(
            name, "a command must say what its reply is", f'Write class {name}(Command[YourReply], service="…")'
        )
    if cls.__service__ is None:
        raise ContractError(
            name, "no service", f'Name the participant that does it: class {name}(Command[…], service="inventory")'
        )


def _check_compensation(cls: Any, original: tuple[Any, ...]) -> None:
    name = cls.__qualname__.rpartition("<locals>.")[2]
    arguments = base_arguments(original, Compensation)
    if arguments:
        undone = arguments[0]
        if not (isinstance(undone, type) and issubclass(undone, Command)):
            shown = getattr(undone, "__name__", undone)
            raise ContractError(name, f"{shown} is no command", f"Write class {name}(Compensation[TheCommand])")
        if cls.__service__ != undone.__service__:
            raise ContractError(
                name,
                f"undoes {undone.__name__} of service {undone.__service__!r} at service {cls.__service__!r}",
                "Leave service= out: a compensation goes to the service of its command",
            )
        cls.__command__ = undone
    elif getattr(cls, "__command__", None) is None:
        raise ContractError(name, "undoes nothing", f"Write class {name}(Compensation[TheCommand])")


def _resolve(argument: Any, cls: Any, local_names: dict[str, Any]) -> Any:
    if isinstance(argument, typing.ForwardRef):
        argument = argument.__forward_arg__
    if isinstance(argument, str):
        scope = {**vars(sys.modules[cls.__module__]), **local_names}
        try:
            return eval(argument, scope)
        except NameError as error:
            raise ContractError(
                cls.__qualname__, f"{error.name!r} is not defined yet", f"Define {error.name} above the command"
            ) from None
    return argument


def _members(name: str, annotation: Any, base: type) -> tuple[type, ...]:
    members = get_args(annotation) or (annotation,)
    for member in members:
        if member is type(None) or member is None or isinstance(member, TypeVar) or member is Any:
            continue
        if not (isinstance(member, type) and issubclass(member, base)):
            shown = getattr(member, "__name__", member)
            raise ContractError(name, f"{shown} is no {base.__name__}", f"Write class {shown}({base.__name__})")
    return tuple(m for m in members if isinstance(m, type) and issubclass(m, base))
