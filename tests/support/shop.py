"""A small shop, as a user would write it: one saga, and the three services it spans."""

from datetime import timedelta

from amends.contracts import Command, Compensation, Rejection, Reply, Signal
from amends.coordinator import Saga, WaitFor, step
from amends.participants import Participant, Reject


class StockReserved(Reply):
    reservation_id: str


class OutOfStock(Rejection):
    available: int


class ReserveStock(Command[StockReserved, OutOfStock], service="inventory"):
    sku: str
    quantity: int


class ReleaseStock(Compensation[ReserveStock]):
    pass


class CardDeclined(Rejection):
    limit: int


class ChargeCard(Command[None, CardDeclined], service="payments"):
    amount: int


class Shipped(Reply):
    tracking: str


class NoCarrier(Rejection):
    carrier: str


class ShipOrder(Command[Shipped, NoCarrier], service="shipping"):
    sku: str
    carrier: str


class Approve(Signal):
    by: str


class PlaceOrder(Saga, keys=("sku", "tracking")):
    sku: str
    quantity: int = 1
    amount: int = 10
    carrier: str = "post"
    needs_approval: bool = False
    reservation_id: str | None = None
    approved_by: str | None = None
    tracking: str | None = None

    @step
    def reserve(self) -> ReserveStock:
        return ReserveStock(sku=self.sku, quantity=self.quantity)

    @reserve.on_success
    def reserved(self, reply: StockReserved) -> None:
        self.reservation_id = reply.reservation_id

    @reserve.compensation
    def release(self) -> ReleaseStock:
        return ReleaseStock()

    @step(timeout=timedelta(hours=1))
    def approve(self) -> WaitFor[Approve]:
        return WaitFor(Approve)

    @approve.when
    def must_be_approved(self) -> bool:
        return self.needs_approval

    @approve.on_success
    def approved(self, signal: Approve) -> None:
        self.approved_by = signal.by

    @step(pivot=True, timeout=timedelta(minutes=5))
    def charge(self) -> ChargeCard:
        return ChargeCard(amount=self.amount)

    @step(retriable=True)
    def ship(self) -> ShipOrder:
        return ShipOrder(sku=self.sku, carrier=self.carrier)

    @ship.on_success
    def shipped(self, reply: Shipped) -> None:
        self.tracking = reply.tracking


inventory = Participant("inventory")
payments = Participant("payments")
shipping = Participant("shipping")


@inventory.action
async def reserve(command: ReserveStock) -> StockReserved:
    if command.sku == "unicorn":
        raise Reject(OutOfStock(available=0))
    return StockReserved(reservation_id=f"{command.quantity} of {command.sku}")


@inventory.compensation
async def release(undo: ReleaseStock) -> None:
    return None


@payments.action
async def charge(command: ChargeCard) -> None:
    if command.amount > 1000:
        raise Reject(CardDeclined(limit=1000))


@shipping.action
async def ship(command: ShipOrder) -> Shipped:
    if command.carrier != "post":
        raise Reject(NoCarrier(carrier=command.carrier))
    return Shipped(tracking=f"post-{command.sku}")
