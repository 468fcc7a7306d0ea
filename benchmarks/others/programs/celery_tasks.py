"""Celery: a chain of tasks with an errback that undoes.

Celery does not tell the client when the undoing is over, so the last task of each order says so in a Redis list.
"""

import os
from typing import Any

from celery import Celery, chain

from benchmarks.others.programs.driver import is_refused

ENDED = "ended"

app = Celery("orders", broker=os.environ["ORDERS_BROKER"], backend=os.environ["ORDERS_BACKEND"])
app.conf.update(
    task_default_queue_type="quorum",
    broker_transport_options={"confirm_publish": True},
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
)


class NoCarrier(Exception):
    pass


@app.task
def reserve(number: int) -> dict[str, Any]:
    return {"number": number, "reservation_id": f"blue-mug-{number}"}


@app.task
def release(order: dict[str, Any]) -> None:
    _tell(order)


@app.task
def charge(order: dict[str, Any]) -> dict[str, Any]:
    return {**order, "charge_id": "charge-1990"}


@app.task
def refund(order: dict[str, Any]) -> dict[str, Any]:
    return order


@app.task(throws=(NoCarrier,))
def ship(order: dict[str, Any]) -> str:
    if is_refused(order["number"]):
        raise NoCarrier
    _tell(order)
    return "1Z-12345"


@app.task
def undo(request: Any, error: Exception, stack: Any) -> None:
    chain(refund.s(request.args[0]), release.s()).apply_async()


def _tell(order: dict[str, Any]) -> None:
    app.backend.client.rpush(ENDED, order["number"])


def place_order(number: int) -> None:
    chain(reserve.s(number), charge.s(), ship.s().on_error(undo.s())).apply_async()
