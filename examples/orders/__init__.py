"""Orders: stock is reserved, a payment taken, a shipment booked; and when one of them fails, all before it is undone.

Read it in this order: `messages` (what the services say to each other), `saga` (the business transaction), `inventory`,
`payments` and `shipping` (the three services), then `audit` (the proof). `python -m examples.orders` runs it all.
"""
