"""Whether the times that a coordinator is told go together: nothing is forgotten while it can still be asked for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import structlog

from amends.brokers import Broker, Retention
from amends.brokers.port import ForgettingBroker
from amends.brokers.retention import span_text
from amends.contracts import UsageError
from amends.coordinator.core import Policy
from amends.coordinator.declaration.definition import Definition

log = structlog.get_logger("amends.coordinator")

_DAY: Final = timedelta(days=1)


def check_lifetimes(definitions: Iterable[Definition], policy: Policy, retention: Retention, broker: Broker) -> None:
    """Raise `UsageError` for times that would lose or repeat something, naming both and what to change."""
    _check_messages(policy, retention, broker)
    _check_sagas(definitions, retention)


def _check_messages(policy: Policy, retention: Retention, broker: Broker) -> None:
    age = span_text(retention.messages)
    if policy.command_ttl > retention.messages:
        raise UsageError(
            f"Policy.command_ttl={span_text(policy.command_ttl)} is longer than message_age={age}: actions could begin "
            "by messages that are older than any may be. Lower command_ttl, or raise message_age"
        )
    if not isinstance(broker, ForgettingBroker):
        return
    kept = broker.messages_kept
    if kept > retention.messages:
        raise UsageError(
            f"the broker keeps messages for {span_text(kept)}, longer than message_age={age}: one that old would find "
            f"its saga or effect forgotten. Raise message_age to {span_text(kept)} or more (and with it "
            "ledger_retention and inbox_retention), or let the broker keep them for less"
        )
    if kept < policy.command_ttl:
        raise UsageError(
            f"the broker keeps messages for {span_text(kept)}, less than Policy.command_ttl="
            f"{span_text(policy.command_ttl)}: commands would be lost that could still begin. Let the broker keep them "
            "for longer, or lower command_ttl"
        )
    if kept < _DAY:
        log.warning(
            "the broker removes messages soon, handled or not: an outage that is longer loses events for good",
            messages_kept=span_text(kept),
            remedy="let the broker keep messages for longer than any outage",
        )


def _check_sagas(definitions: Iterable[Definition], retention: Retention) -> None:
    if retention.inbox is None:
        return
    longest = retention.inbox - retention.messages
    endless = []
    for definition in definitions:
        if definition.deadline is None:
            endless.append(definition.tag)
        elif definition.deadline > longest:
            raise UsageError(
                f"saga {definition.tag} may run for {span_text(definition.deadline)} (deadline=), but participants "
                f"forget effects after inbox_retention={span_text(retention.inbox)}, of which message_age="
                f"{span_text(retention.messages)} is for messages on their way: an undo that comes later finds nothing "
                f"and the saga gets stuck. Raise inbox_retention to "
                f"{span_text(definition.deadline + retention.messages)} or more, here and at the participants, or "
                "shorten the deadline"
            )
    if endless:
        log.debug(
            "sagas without deadline should end before participants forget their effects",
            sagas=sorted(endless),
            within=span_text(longest),
            remedy="give them a deadline=, or raise inbox_retention",
        )
