"""The messages of a small shop, for tests of the declaration face."""

from amends.contracts import Command, Compensation, Event, Rejection, Reply, Signal


class StockReserved(Reply):
    reservation_id: str


class OutOfStock(Rejection):
    sku: str
    available: int = 0


class CardCharged(Reply):
    charge_id: str


class WalletCharged(Reply):
    wallet_tx: str


class Shipped(Reply):
    parcel: str


class ReserveStock(Command[StockReserved, OutOfStock], service="inventory"):
    sku: str
    quantity: int = 1


class ReleaseStock(Compensation[ReserveStock]):
    reason: str = ""


class ChargeCard(Command[CardCharged], service="payments"):
    amount: int


class RefundCard(Compensation[ChargeCard]):
    pass


class ChargeWallet(Command[WalletCharged], service="payments"):
    amount: int


class RefundWallet(Compensation[ChargeWallet]):
    pass


class ShipOrder(Command[Shipped], service="shipping"):
    address: str


class Ping(Command[None], service="monitor"):
    host: str = ""


class OrderPlaced(Event):
    order_id: str


class PaymentCaptured(Event):
    order_id: str
    amount: int


class Approve(Signal):
    by: str
