"""The messages that services exchange: commands and their replies, compensations, events, signals."""

from __future__ import annotations

import difflib
import sys
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, get_args, get_origin

import msgspec
from msgspec import Struct, StructMeta
from typing_extensions import TypeVar, dataclass_transform

from amends.contracts.annotations import members, shown
from amends.contracts.errors import ContractError
from amends.contracts.names import is_wire_name, kebab

TYPE_FIELD = "$type"
"""The field that carries a message's tag when it stands inside other data, such as a union in a saga's state."""

_OURS = ("service", "version", "name", "abstract")
_MSGSPEC = ("frozen", "kw_only", "rename", "eq", "order", "gc")


class MessageMeta(StructMeta):
    """Takes the class keywords of amends off, gives the rest to msgspec, and checks the contract.

    `name=` is the stable name on the wire (by default made from the class name), `version=` its major version,
    `service=` the participant that handles it, `abstract=` says that it is only a base for others.
    """

    __service__: str | None
    __version__: int
    __tag__: str
    __abstract__: bool
    __contract__: tuple[Any, ...]

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
    options.setdefault("kw_only", True)
    if namespace.get("__module__") == __name__:
        cls = StructMeta.__new__(mcls, class_name, bases, namespace, **options)
        cls.__service__, cls.__version__, cls.__abstract__, cls.__tag__ = None, version, True, class_name
        cls.__contract__ = ()
        return cls
    _check_keywords(class_name, service, version, name, abstract, options)
    frame = sys._getframe(2)
    scope = _Scope(namespace.get("__module__", ""), {} if frame.f_locals is frame.f_globals else frame.f_locals)
    contract = _contract(class_name, namespace.get("__orig_bases__", bases), scope)
    if service is None:
        service = _service_of(bases, contract)
    tag = stable_tag(name or kebab(class_name), version, service)
    if not is_wire_name(tag):
        raise ContractError(
            class_name,
            f"its name on the wire would be {tag!r}, and brokers only take letters, digits and . _ - in ASCII",
            'Write name="…" in the class line',
        )
    cls = StructMeta.__new__(mcls, class_name, bases, namespace, tag=tag, tag_field=TYPE_FIELD, **options)
    cls.__service__, cls.__version__, cls.__tag__ = service, version, tag
    cls.__contract__ = contract
    cls.__abstract__ = abstract or bool(cls.__dict__.get("__parameters__"))
    if not cls.__abstract__:
        _complete(cls, contract)
    return cls


def stable_tag(name: str, version: int, service: str | None = None) -> str:
    """`inventory.reserve-stock.v1`: what a type is called on the wire."""
    return f"{service}.{name}.v{version}" if service else f"{name}.v{version}"


def _check_keywords(
    class_name: str, service: str | None, version: int, name: str | None, abstract: bool, options: dict[str, Any]
) -> None:
    for keyword in options:
        if keyword not in _MSGSPEC:
            close = difflib.get_close_matches(keyword, [*_OURS, *_MSGSPEC], 1)
            remedy = f"Did you mean {close[0]}=?" if close else f"Known: {', '.join(f'{k}=' for k in _OURS)}"
            raise ContractError(class_name, f"unknown class keyword {keyword!r}", remedy)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ContractError(class_name, f"version={version!r} is no major version", "Write version=1, version=2, …")
    if not isinstance(abstract, bool):
        raise ContractError(class_name, f"abstract={abstract!r} is no bool", "Write abstract=True, or leave it out")
    for keyword, value in (("name", name), ("service", service)):
        if value is not None and not is_wire_name(value):
            raise ContractError(
                class_name,
                f"{keyword}={value!r} cannot be a name on the wire",
                f'Use letters, digits and . _ - in ASCII: {keyword}="inventory"',
            )


# what a class says of its contract: the arguments it gives to Command[…] or Compensation[…]


class _Scope:
    """Where names written as strings are looked up: the module, and the function that holds the class statement."""

    __slots__ = ("local_names", "module")

    def __init__(self, module: str, local_names: Mapping[str, Any]) -> None:
        self.module, self.local_names = module, local_names

    def resolve(self, class_name: str, argument: Any) -> Any:
        text = getattr(argument, "__forward_arg__", argument)
        if not isinstance(text, str):
            return argument
        try:
            return eval(text, vars(sys.modules[self.module]), dict(self.local_names))
        except NameError as error:
            raise ContractError(
                class_name, f"{error.name!r} is not defined yet", f"Define {error.name} above it"
            ) from None


def _contract(class_name: str, bases: tuple[Any, ...], scope: _Scope) -> tuple[Any, ...]:
    """The arguments of `Command` or `Compensation` that the bases give, those of generic bases filled in."""
    for base in bases:
        origin = get_origin(base) or base
        if not (isinstance(origin, type) and issubclass(origin, Command | Compensation)):
            continue
        arguments = tuple(scope.resolve(class_name, a) for a in get_args(base))
        if origin is Command or origin is Compensation:
            return arguments
        given = dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False))
        return tuple(_filled(a, given) for a in origin.__contract__)
    return ()


def _filled(argument: Any, given: dict[Any, Any]) -> Any:
    parameters = getattr(argument, "__parameters__", ())
    if argument in given:
        return given[argument]
    if parameters and not isinstance(argument, type):
        return argument[tuple(given.get(p, p) for p in parameters)]
    return argument


def _service_of(bases: tuple[type, ...], contract: tuple[Any, ...]) -> str | None:
    for base in bases:
        if service := getattr(base, "__service__", None):
            return str(service)
    if contract and any(issubclass(base, Compensation) for base in bases):
        return getattr(contract[0], "__service__", None)
    return None


def _complete(cls: Any, contract: tuple[Any, ...]) -> None:
    """Fill in what a concrete class promises, or say what is missing."""
    name = cls.__qualname__.rpartition("<locals>.")[2]
    if issubclass(cls, Command):
        _complete_command(cls, name, contract)
    elif issubclass(cls, Compensation):
        _complete_compensation(cls, name, contract)


def _complete_command(cls: Any, name: str, contract: tuple[Any, ...]) -> None:
    if not contract:
        raise ContractError(
            name, "a command must say what its reply is", f'Write class {name}(Command[YourReply], service="…")'
        )
    replies = members(contract[0])
    if type(None) in replies and len(replies) > 1:
        raise ContractError(
            name, "None stands among its replies", "Give it a Reply without fields instead, or Command[None] alone"
        )
    cls.__replies__ = () if replies == (type(None),) else tuple(_concrete(name, r, Reply) for r in replies)
    # Rejection itself stands for "not said": newer Pythons fill in the default of the type variable
    rejections = [r for r in members(contract[1]) if r is not Rejection] if len(contract) > 1 else []
    cls.__rejections__ = tuple(_concrete(name, r, Rejection) for r in rejections)
    if cls.__service__ is None:
        raise ContractError(
            name, "no service", f'Name the participant that does it: class {name}(Command[…], service="inventory")'
        )


def _complete_compensation(cls: Any, name: str, contract: tuple[Any, ...]) -> None:
    if not contract:
        raise ContractError(name, "undoes nothing", f"Write class {name}(Compensation[TheCommand])")
    undone = _concrete(name, contract[0], Command)
    if cls.__service__ != undone.__service__:
        raise ContractError(
            name,
            f"undoes {undone.__name__} of service {undone.__service__!r} at service {cls.__service__!r}",
            "Leave service= out: a compensation goes to the service of its command",
        )
    cls.__command__ = undone


def _concrete(name: str, argument: Any, base: type) -> Any:
    """`argument`, if it is a class of this kind that can be on the wire. Raises `ContractError`."""
    what = base.__name__
    if isinstance(argument, typing.TypeVar):
        raise ContractError(
            name, f"{argument.__name__} is left open", f"Say which {what.lower()} it is: class {name}(Base[…])"
        )
    if not (isinstance(argument, type) and issubclass(argument, base)):
        raise ContractError(name, f"{shown(argument)} is no {what}", f"Write class {shown(argument)}({what})")
    if argument.__abstract__:  # type: ignore[attr-defined]
        raise ContractError(name, f"{argument.__name__} is abstract", f"Name the {what} classes that are meant")
    return argument


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Message(Struct, metaclass=MessageMeta, frozen=True):
    """What all messages have in common: frozen, keyword-only, tolerant of unknown fields when read."""


class Reply(Message, frozen=True):
    """What a participant answers when it did what it was asked."""


class Rejection(Message, frozen=True):
    """What a participant answers when it did nothing: a business "no". Nobody retries it."""


class Event(Message, frozen=True):
    """Something that happened, in the past tense. Events are facts: they are published, never undone."""


class Signal(Message, frozen=True):
    """A word from outside to one saga, such as an approval."""


R_co = TypeVar("R_co", bound="Reply | None", covariant=True)
X_co = TypeVar("X_co", bound=Rejection, covariant=True, default=Rejection)


class Command(Message, Generic[R_co, X_co], frozen=True):
    """Asks `service` for one local transaction. `R` is the reply that says it is done, `X` the rejection.

    `Command[None]` is answered by "done" alone; a union of replies is allowed. The rejection may be left out: then the
    participant may refuse with any. `__replies__` and `__rejections__` are the classes that were named.
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
