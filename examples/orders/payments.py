"""The payments service: it asks a bank, and a call to a bank cannot be part of our transaction.

So this is the other way to take part. If this process dies in the middle of a call, nobody can know whether the bank
has done it. amends then runs the handler again, or its compensation; both are harmless, because the bank is given
`ctx.idempotency_key`, which is the same for every attempt, and does nothing twice for one key.
"""

from __future__ import annotations

from datetime import timedelta

from amends.participants import Context, Participant, Reject

from .bank import Bank, Declined
from .home import BANK, home
from .messages import Charge, PaymentRefused, PaymentTaken, Refund

# the lease is how long others wait for a process that may be dead, before they take over what it was doing
payments = Participant("payments", lease=timedelta(seconds=3))


# A plain function runs in a thread, so it may block. `concurrency`: the bank takes four calls from us at a time.
@payments.action(Charge, concurrency=4)
def charge(command: Charge, ctx: Context) -> PaymentTaken:
    try:
        Bank(home() / BANK).charge(ctx.idempotency_key, command.account, command.amount, command.order_id)
    except Declined as no:
        raise Reject(PaymentRefused(reason=str(no))) from None
    return PaymentTaken(receipt=ctx.idempotency_key)


@payments.compensation(Refund, concurrency=4)
def refund(undo: Refund, ctx: Context[Charge]) -> None:
    # ctx.undoes.outcome may be "unknown": a charge was begun, and its end was never heard of. The effect key is the one
    # that it was made under, and the bank knows whether it was made.
    Bank(home() / BANK).reverse(ctx.idempotency_key, ctx.effect_key, ctx.undoes.command.order_id)
