"""The options that commands have in common, and how a command is made of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final, TypeVar, cast

import typer
from msgspec import Struct

from amends.brokers.settings import Found, Settings, find_settings
from amends.coordinator.cli.errors import reporting
from amends.coordinator.cli.logs import configure_logs
from amends.coordinator.cli.output import Output
from amends.coordinator.cli.runner import run

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the trace of errors.")]
Broker = Annotated[str | None, typer.Option("--broker", metavar="URL", help="The broker. [AMENDS_BROKER]")]
Store = Annotated[str | None, typer.Option("--store", metavar="URL", help="The store of the sagas. [AMENDS_STORE]")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for an answer. [AMENDS_TIMEOUT]")
]
Inbox = Annotated[
    str | None,
    typer.Option("--inbox", metavar="URL", help="The inbox of participants without one; by default beside the broker."),
]
Log = Annotated[str | None, typer.Option("--log", metavar="console|json", help="How to write the log.")]
LogLevel = Annotated[
    str | None, typer.Option("--log-level", metavar="debug|info|warning|error", help="How much to log.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="How many processes share the work. [AMENDS_WORKERS]")
]
SagaId = Annotated[str, typer.Argument(metavar="ID", help="The id of a saga.")]
By = Annotated[str | None, typer.Option("--by", metavar="WHO", help="Who decides it; by default you.")]


class Call(Struct, frozen=True):
    """What every command knows: the settings and where they come from, where to put the result, and its own arguments
    as they were given."""

    found: Found
    out: Output
    arguments: tuple[str, ...] = ()

    @property
    def settings(self) -> Settings:
        return self.found.settings


LOCAL: Final = {"json": Json, "debug": Debug}
"""For commands that look at code only."""
STORED: Final = {"store": Store, **LOCAL}
CARRIED: Final = {"broker": Broker, **LOCAL}
CONNECTED: Final = {"broker": Broker, "store": Store, **LOCAL}
ASKING: Final = {"broker": Broker, "store": Store, "timeout": Timeout, **LOCAL}

F = TypeVar("F", bound=Callable[..., int | None] | Callable[..., Coroutine[Any, Any, int | None]])


def command(app: typer.Typer, name: str, options: dict[str, Any]) -> Callable[[F], F]:
    """Makes a function a command.

    Its first parameter is the `Call`, the others are arguments and options of its own, and `options` come on top. It
    gives the exit code, None for 0. Coroutine functions are run in a loop.
    """

    def register(fn: F) -> F:
        own = list(inspect.signature(fn, eval_str=True).parameters.values())[1:]
        common = [
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=False if key in LOCAL else None, annotation=type
            )
            for key, type in options.items()
        ]

        def execute(context: typer.Context, **given: Any) -> int | None:
            common = {key: given.pop(key) for key in options}
            json, debug = common.pop("json"), common.pop("debug")
            with reporting(debug=debug):
                call = Call(find_settings(common), Output(json=json), context.obj)
                # what a store or broker warns of must not come between the lines of a result
                configure_logs(call.settings)
                result = fn(call, **given)
                return run(result) if inspect.iscoroutine(result) else cast("int | None", result)

        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [context, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *common]
        execute.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        execute.__annotations__ = {p.name: p.annotation for p in parameters}
        execute.__doc__ = fn.__doc__
        app.command(name)(execute)
        return fn

    return register
