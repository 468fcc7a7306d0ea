"""What the services say to each other. In real life this is a small package that all of them import.

A command names its reply, and the rejection it may get instead. Its class keyword says which service does it; a
`Compensation` undoes a command, at the same service. Events are facts from outside, in the past tense.
"""

from __future__ import annotations

from amends.contracts import Command, Compensation, Event, Rejection, Reply

# inventory


class StockReserved(Reply):
    on_hand: int


class OutOfStock(Rejection):
    on_hand: int


class ReserveStock(Command[StockReserved, OutOfStock], service="inventory"):
    order_id: str
    sku: str
    quantity: int


class ReleaseStock(Compensation[ReserveStock]):
    reason: str = ""


# payments


class PaymentTaken(Reply):
    receipt: str


class PaymentRefused(Rejection):
    reason: str


class Charge(Command[PaymentTaken, PaymentRefused], service="payments"):
    order_id: str
    account: str
    amount: int  # in cents


class Refund(Compensation[Charge]):
    reason: str = ""


# shipping


class ShipmentBooked(Reply):
    carrier: str
    tracking: str


class NoCarrier(Rejection):
    region: str


class BookShipment(Command[ShipmentBooked, NoCarrier], service="shipping"):
    order_id: str
    address: str


class CancelShipment(Compensation[BookShipment]):
    reason: str = ""


# the world outside


class HandedOver(Event):
    """The carrier has taken the parcel: from here on it can only arrive."""

    order_id: str


class Delivered(Event):
    order_id: str
