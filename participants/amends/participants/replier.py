"""Saying what became of messages: replies are published, deliveries acknowledged or made dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import structlog

from amends.brokers import Broker, Delivery, Outgoing
from amends.contracts import Clock, InternalError, ReplyOutcome
from amends.participants.answers import reply_to
from amends.participants.batcher import Batcher
from amends.participants.inbox import WorkAnswer
from amends.participants.incoming import Incoming, Unreadable
from amends.participants.intake import Intake
from amends.participants.rows import Answered, ClosingAnswer, Fenced, Ignored, OpeningAnswer

_log: Any = structlog.get_logger("amends.participants")

AnyAnswer: TypeAlias = OpeningAnswer | ClosingAnswer | WorkAnswer
Said: TypeAlias = tuple[Incoming, AnyAnswer]

_FAILURES = (ReplyOutcome.FAILED, ReplyOutcome.UNDO_FAILED)


class Replier:
    """Publishes the answers of one service, and then lets go of what they answer. Methods raise `BrokerUnavailable`."""

    def __init__(self, service: str, broker: Broker, clock: Clock) -> None:
        self._service, self._broker, self._clock = service, broker, clock
        self.answer = Batcher(self._answer_many)

    def reply(self, incoming: Incoming, answer: Answered) -> Outgoing | None:
        """The reply that carries an answer, or None when nobody wants one."""
        return reply_to(incoming.envelope, self._service, answer, self._clock.now())

    async def answer_all(self, said: Sequence[Said], *, published: bool = False) -> None:
        """Answer these, and acknowledge them. `published`: the replies are out already."""
        now = self._clock.now()
        replies = []
        done: dict[Intake, list[Delivery]] = {}
        for incoming, answer in said:
            match answer:
                case Answered():
                    if not published and (reply := reply_to(incoming.envelope, self._service, answer, now)):
                        replies.append(reply)
                case Ignored() | Fenced():
                    _log.info("a message is not answered", effect_key=incoming.request.effect_key, why=_why(answer))
                case _:
                    raise InternalError(f"{incoming.request.effect_key}: {answer} is no answer to send")
            done.setdefault(incoming.intake, []).append(incoming.delivery)
        if replies:
            await self._broker.publish(replies)
        for intake, deliveries in done.items():
            await intake.ack(deliveries)

    async def bury(self, letter: Unreadable, intake: Intake) -> None:
        """Nobody can process it."""
        _log.warning(
            "a message cannot be processed; it is now a dead letter", reason=letter.reason, detail=letter.detail
        )
        await intake.dead_letter(letter.delivery, letter.reason, letter.detail)

    async def give_up(self, incoming: Incoming, answer: AnyAnswer, detail: str) -> None:
        """It took its process along too often. The saga goes on by the answer; the letter is for people, who have to
        repair the handler. What has meanwhile ended in another way is just answered."""
        if not isinstance(answer, Answered) or answer.outcome not in _FAILURES:
            await self.answer((incoming, answer))
            return
        if reply := self.reply(incoming, answer):
            await self._broker.publish([reply])
        _log.error(
            "a message took its process along too often; it is answered as failed, and now a dead letter",
            handler=None if incoming.handler is None else incoming.handler.where,
            effect_key=incoming.request.effect_key,
            attempt=incoming.envelope.attempt,
        )
        await incoming.intake.dead_letter(incoming.delivery, "delivery-limit", detail)

    def close(self) -> None:
        """Break off; those who still wait are cancelled."""
        self.answer.close()

    async def _answer_many(self, said: list[Said]) -> list[None]:
        await self.answer_all(said)
        return [None] * len(said)


def _why(answer: Ignored | Fenced) -> str:
    if isinstance(answer, Fenced):
        return "its claim was taken over by somebody else; the result is thrown away"
    return {"expired": "it came past its not-after", "stale": "a newer revision has taken its place"}[answer.reason]
