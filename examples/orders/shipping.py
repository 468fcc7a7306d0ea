"""The shipping service: async handlers, and a world that does not always answer.

An error that a handler raises is not a "no". amends tries again: first here, at short intervals (see `retry`), then
from the coordinator, by the policy of the saga's step, at longer ones. Only a `Reject` is final at once.
"""

from __future__ import annotations

from datetime import timedelta

from tenacity import AsyncRetrying, stop_after_attempt, wait_random

from amends.participants import Context, Participant, Reject

from .carriers import REGIONS, Carriers
from .home import CARRIERS, home
from .messages import BookShipment, CancelShipment, NoCarrier, ShipmentBooked

shipping = Participant(
    "shipping",
    lease=timedelta(seconds=3),
    concurrency=16,
    retry=AsyncRetrying(stop=stop_after_attempt(2), wait=wait_random(0.05, 0.2)),
)


@shipping.action(BookShipment)
async def book(command: BookShipment, ctx: Context) -> ShipmentBooked:
    region = command.address.rpartition(", ")[2]
    if (carrier := REGIONS.get(region)) is None:
        raise Reject(NoCarrier(region=region))
    tracking = await Carriers(home() / CARRIERS).book(ctx.idempotency_key, carrier, command.order_id)
    return ShipmentBooked(carrier=carrier, tracking=tracking)


@shipping.compensation(CancelShipment)
async def cancel(undo: CancelShipment, ctx: Context[BookShipment]) -> None:
    await Carriers(home() / CARRIERS).cancel(ctx.idempotency_key, ctx.effect_key, ctx.undoes.command.order_id)
