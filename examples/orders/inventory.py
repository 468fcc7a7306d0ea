"""The inventory service: stock per article (SKU), in its own database.

It shows the strongest way to take part. Its handlers are *transactional*: the inbox (what amends remembers of the
commands it has handled) lies in the service's own database, and `ctx.session` is that very transaction. So the stock
and the memory of having reserved it are committed together or not at all, and no crash can come between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from amends.participants import Context, Participant, Reject

from .home import home, inbox_url, transaction
from .messages import OutOfStock, ReleaseStock, ReserveStock, StockReserved

inventory = Participant("inventory", inbox=inbox_url(home()))


@inventory.action(ReserveStock, transactional=True)
def reserve(command: ReserveStock, ctx: Context) -> StockReserved:
    found = ctx.session.execute("SELECT on_hand FROM stock WHERE sku = ?", (command.sku,)).fetchone()
    on_hand = found[0] if found else 0
    if on_hand < command.quantity:
        # a business "no": nothing was done, nobody tries again, and the saga undoes what came before
        raise Reject(OutOfStock(on_hand=on_hand))
    _move(ctx, command, -command.quantity)
    return StockReserved(on_hand=on_hand - command.quantity)


@inventory.compensation(ReleaseStock, transactional=True)
def release(undo: ReleaseStock, ctx: Context[ReserveStock]) -> None:
    # called only if the stock was reserved: had the command never arrived, amends would have answered for us
    _move(ctx, ctx.undoes.command, ctx.undoes.command.quantity)


def _move(ctx: Context, command: ReserveStock, pieces: int) -> None:
    """Change the stock, and write down why."""
    ctx.session.execute("UPDATE stock SET on_hand = on_hand + ? WHERE sku = ?", (pieces, command.sku))
    ctx.session.execute(
        "INSERT INTO movements VALUES (?, ?, ?, ?)", (ctx.idempotency_key, command.order_id, command.sku, pieces)
    )


# The tables. There is no UNIQUE on the key of a movement, on purpose: that each happens only once is amends' promise
# here, and the audit would see it broken.

TABLES = (
    """CREATE TABLE IF NOT EXISTS stock
       (sku TEXT PRIMARY KEY, opening INTEGER NOT NULL, on_hand INTEGER NOT NULL CHECK (on_hand >= 0))""",
    "CREATE TABLE IF NOT EXISTS movements (key TEXT, order_id TEXT, sku TEXT, pieces INTEGER)",
)


def stock_up(path: Path, pieces: Mapping[str, int]) -> None:
    """Open the warehouse with so many pieces of each article. What is there already stays as it is."""
    with transaction(path) as connection:
        for table in TABLES:
            connection.execute(table)
        connection.executemany("INSERT OR IGNORE INTO stock VALUES (?1, ?2, ?2)", pieces.items())
