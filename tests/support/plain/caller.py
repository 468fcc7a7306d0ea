"""A caller written from docs/protocol.md alone: it starts sagas, publishes events and hears how the sagas end."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from typing import Any, TypedDict

from cloudevents.core.v1.event import CloudEvent
from tests.support.plain.messages import Transport, slot_address

Notice = dict[str, Any]


class Order(TypedDict):
    """A saga to be started, what happens to it from outside, and whether it is cancelled."""

    id: str
    input: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    cancel: bool


class Caller:
    def __init__(self, transport: Transport) -> None:
        self._transport, self._name = transport, secrets.token_hex(8)
        self._answers: defaultdict[str, asyncio.Future[Notice]] = defaultdict(asyncio.get_running_loop().create_future)
        self._ends: defaultdict[str, asyncio.Future[Notice]] = defaultdict(asyncio.get_running_loop().create_future)

    async def trade(self, orders: list[Order]) -> dict[str, list[Notice]]:
        """What was said to each order: to its start, to its cancellation if there was one, and of its end."""
        said = await self._transport.listen(self._name)

        async def hear() -> None:
            async for event in said:
                self._hear(event)

        hearing = asyncio.create_task(hear())
        try:
            told = await asyncio.gather(*map(self._see_through, orders))
            return {order["id"]: notices for order, notices in zip(orders, told, strict=True)}
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    async def _see_through(self, order: Order) -> list[Notice]:
        data = {"saga": "place-order", "input": order["input"], "version": None}
        notices = [await self._ask(order["id"], "start", "amends.start.v1", data)]
        for type, fields in order["events"]:
            # no attribute of ours: any CloudEvent will do
            event = {"id": f"{order['id']}/{type}", "source": "/world", "type": type}
            await self._transport.send(f"event:{type}", CloudEvent(event, fields))
        if order["cancel"]:
            cancel = {"action": "cancel", "by": "plain", "reason": "the customer changed their mind"}
            notices.append(await self._ask(order["id"], "control", "amends.control.v1", cancel))
        return [*notices, await self._ends[order["id"]]]

    async def _ask(self, saga_id: str, kind: str, type: str, data: dict[str, Any]) -> Notice:
        question = {
            "id": f"{self._name}/{saga_id}/{kind}",
            "amendskind": kind,
            "type": type,
            "source": "/plain/caller",
            "subject": saga_id,
            "datacontenttype": "application/json",
            "replyto": f"client:{self._name}",
            "partitionkey": saga_id,
        }
        event = CloudEvent(dict(question), data)
        await self._transport.send(slot_address(saga_id), event)
        return await self._answers[question["id"]]

    def _hear(self, event: CloudEvent) -> None:
        notice = event.get_data()
        assert isinstance(notice, dict)
        if notice["what"] == "ended":
            waiting = self._ends[event.get_subject() or ""]
        else:
            waiting = self._answers[event.get_extension("causationid")]
        if not waiting.done():
            waiting.set_result(notice)
