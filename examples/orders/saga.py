"""The saga: the whole business transaction on one page.

| step        | who       | undone by       |                                                       |
|-------------|-----------|-----------------|-------------------------------------------------------|
| reserve     | inventory | release         |                                                       |
| charge      | payments  | refund          |                                                       |
| ship        | shipping  | cancel_shipment |                                                       |
| handed_over | the world |                 | the pivot: until here all is undone, then nothing     |
| delivered   | the world |                 |                                                       |

Its fields are its state: they are stored after every step, so that the saga survives the death of any process. Its
methods do no work themselves. They only say what is to be done next, and the services do it.
"""

from __future__ import annotations

from datetime import timedelta

from amends.coordinator import Retry, Saga, WaitFor, step

from .messages import (
    BookShipment,
    CancelShipment,
    Charge,
    Delivered,
    HandedOver,
    PaymentTaken,
    Refund,
    ReleaseStock,
    ReserveStock,
    ShipmentBooked,
)


class PlaceOrder(Saga, version=1, keys=("order_id", "account", "tracking")):
    order_id: str
    sku: str
    quantity: int
    account: str
    amount: int  # in cents
    address: str
    receipt: str | None = None
    tracking: str | None = None

    # If nobody answers in time, the order is cancelled: whether the step happened or not, it is undone.
    @step(timeout=timedelta(minutes=10))
    def reserve(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, sku=self.sku, quantity=self.quantity)

    @reserve.compensation
    def release(self) -> ReleaseStock:
        return ReleaseStock(reason=f"order {self.order_id} was cancelled")

    @step(timeout=timedelta(minutes=10))
    def charge(self) -> Charge:
        return Charge(order_id=self.order_id, account=self.account, amount=self.amount)

    @charge.on_success
    def charged(self, reply: PaymentTaken) -> None:
        self.receipt = reply.receipt

    @charge.compensation
    def refund(self) -> Refund:
        return Refund(reason=f"order {self.order_id} was cancelled")

    # The carriers' systems are often down for a while, so we are patient with them.
    @step(timeout=timedelta(minutes=10), retry=Retry(attempts=10, delay=0.5, max_delay=30))
    def ship(self) -> BookShipment:
        return BookShipment(order_id=self.order_id, address=self.address)

    @ship.on_success
    def booked(self, reply: ShipmentBooked) -> None:
        self.tracking = reply.tracking

    @ship.compensation
    def cancel_shipment(self) -> CancelShipment:
        return CancelShipment(reason=f"order {self.order_id} was cancelled")

    # Waits for the world have no timeout here: they take days or weeks, and cost nothing but a row in the store.
    @step(pivot=True)
    def handed_over(self) -> WaitFor[HandedOver]:
        return WaitFor(HandedOver, where={"order_id": self.order_id})

    @step
    def delivered(self) -> WaitFor[Delivered]:
        return WaitFor(Delivered, where={"order_id": self.order_id})
