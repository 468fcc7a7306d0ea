"""The commands that look at saga classes, and at the settings. They connect to nothing."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from amends.brokers.retention import span_text
from amends.brokers.settings import SPANS, without_password
from amends.coordinator.cli.errors import Exit
from amends.coordinator.cli.options import ASKING, LOCAL, Call, Inbox, Log, LogLevel, Workers, command
from amends.coordinator.cli.output import Output
from amends.coordinator.declaration.saga import definition_of
from amends.coordinator.graph import as_dict, dot, mermaid
from amends.coordinator.lint import lint as lint_saga
from amends.coordinator.loading import load_saga, load_sagas


class Format(StrEnum):
    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


def graph(
    call: Call,
    saga: Annotated[str, typer.Argument(metavar="MODULE:SAGA", help="A saga class.")],
    format: Annotated[
        Format, typer.Option("--format", help="How to draw it; json lists what each step says.")
    ] = Format.MERMAID,
) -> None:
    """Draw the steps of a saga."""
    definition = definition_of(load_saga(saga))
    if format is Format.JSON or call.out.json:
        call.out.document(as_dict(definition))
    else:
        sys.stdout.write(mermaid(definition) if format is Format.MERMAID else dot(definition))


def lint(
    call: Call,
    modules: Annotated[list[str], typer.Argument(metavar="MODULE[:SAGA]…", help="Where the sagas are.")],
) -> int | None:
    """Say what is wrong or doubtful about sagas. Errors make it exit with 1.

    --json prints {"findings": […], "sagas": […]}.
    """
    sagas = load_sagas(modules)
    findings = [(definition_of(saga).tag, finding) for saga in sagas for finding in lint_saga(saga)]
    errors = sum(finding.severity == "error" for _, finding in findings)

    def show(out: Output) -> None:
        for tag, finding in findings:
            place = f"{tag} {finding.step}" if finding.step else tag
            out.line(f"{finding.severity}: {place}: {finding.message}")
            out.line(f"    {finding.remedy}")
        out.line(f"{_number(len(sagas), 'saga')}, {_number(errors, 'error')}, "
                 f"{_number(len(findings) - errors, 'warning')}")  # fmt: skip

    document: dict[str, Any] = {
        "sagas": [definition_of(saga).tag for saga in sagas],
        "findings": [
            {"saga": tag, "step": f.step, "severity": f.severity, "message": f.message, "remedy": f.remedy}
            for tag, f in findings
        ],
    }
    call.out.result(document, show)
    return Exit.FAILED if errors else None


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def config(call: Call) -> None:
    """Show the settings that hold here, and where each comes from."""
    rows = []
    for key, source in call.found.sources.items():
        value = getattr(call.settings, key)
        if key in SPANS:
            value = span_text(value)
        rows.append((key, without_password(value) if isinstance(value, str) else value, source))
    document = {"settings": {key: {"value": value, "source": source} for key, value, source in rows}}
    call.out.result(document, lambda out: out.table(("setting", "value", "from"), rows))


def add_to(app: typer.Typer) -> None:
    command(app, "graph", LOCAL)(graph)
    command(app, "lint", LOCAL)(lint)
    command(app, "config", {"inbox": Inbox, "log": Log, "log_level": LogLevel, "workers": Workers, **ASKING})(config)
