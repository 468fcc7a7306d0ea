"""The order saga, which all benchmarks run: reserve, charge, ship; every tenth is refused at the third and undone."""

from __future__ import annotations

from amends.contracts import Command, Compensation, Rejection, Reply
from amends.coordinator import Saga, step
from amends.participants import Participant, Reject

NOWHERE = "nowhere"
"""An address that nobody ships to."""


class StockReserved(Reply):
    reservation_id: str


class OutOfStock(Rejection):
    available: int


class ReserveStock(Command[StockReserved, OutOfStock], service="shop"):
    sku: str
    quantity: int


class ReleaseStock(Compensation[ReserveStock]):
    reservation_id: str = ""


class CardCharged(Reply):
    charge_id: str


class CardDeclined(Rejection):
    limit: int


class ChargeCard(Command[CardCharged, CardDeclined], service="shop"):
    amount: int


class RefundCard(Compensation[ChargeCard]):
    pass


class OrderShipped(Reply):
    tracking: str


class NoCarrier(Rejection):
    address: str


class ShipOrder(Command[OrderShipped, NoCarrier], service="shop"):
    address: str


class PlaceOrder(Saga):
    sku: str
    amount: int
    address: str
    quantity: int = 1
    reservation_id: str | None = None

    @step
    def reserve(self) -> ReserveStock:
        return ReserveStock(sku=self.sku, quantity=self.quantity)

    @reserve.on_success
    def reserved(self, reply: StockReserved) -> None:
        self.reservation_id = reply.reservation_id

    @reserve.compensation
    def release(self) -> ReleaseStock:
        return ReleaseStock(reservation_id=self.reservation_id or "")

    @step
    def charge(self) -> ChargeCard:
        return ChargeCard(amount=self.amount)

    @charge.compensation
    def refund(self) -> RefundCard:
        return RefundCard()

    @step(pivot=True)
    def ship(self) -> ShipOrder:
        return ShipOrder(address=self.address)


def order(number: int) -> PlaceOrder:
    """One order; every tenth cannot be shipped."""
    return PlaceOrder(sku="blue-mug", amount=1990, address=NOWHERE if number % 10 == 9 else "1 Harbour Street")


def shop_in_transactions() -> Participant:
    """The service at the other end, whose handlers do next to nothing, inside the inbox's transaction."""
    service = Participant("shop")

    @service.action(ReserveStock, transactional=True)
    def reserve(command: ReserveStock) -> StockReserved:
        return _reserved(command)

    @service.compensation(ReleaseStock, transactional=True)
    def release(undo: ReleaseStock) -> None:
        return None

    @service.action(ChargeCard, transactional=True)
    def charge(command: ChargeCard) -> CardCharged:
        return _charged(command)

    @service.compensation(RefundCard, transactional=True)
    def refund(undo: RefundCard) -> None:
        return None

    @service.action(ShipOrder, transactional=True)
    def ship(command: ShipOrder) -> OrderShipped:
        return _shipped(command)

    return service


def shop_with_claims() -> Participant:
    """The same with handlers that may call others: each is claimed, run, and finished."""
    service = Participant("shop", concurrency=512, undo_concurrency=128)

    @service.action
    async def reserve(command: ReserveStock) -> StockReserved:
        return _reserved(command)

    @service.compensation
    async def release(undo: ReleaseStock) -> None:
        return None

    @service.action
    async def charge(command: ChargeCard) -> CardCharged:
        return _charged(command)

    @service.compensation
    async def refund(undo: RefundCard) -> None:
        return None

    @service.action
    async def ship(command: ShipOrder) -> OrderShipped:
        return _shipped(command)

    return service


def _reserved(command: ReserveStock) -> StockReserved:
    return StockReserved(reservation_id=f"{command.sku}-{command.quantity}")


def _charged(command: ChargeCard) -> CardCharged:
    return CardCharged(charge_id=f"charge-{command.amount}")


def _shipped(command: ShipOrder) -> OrderShipped:
    if command.address == NOWHERE:
        raise Reject(NoCarrier(address=command.address))
    return OrderShipped(tracking="1Z-12345")
