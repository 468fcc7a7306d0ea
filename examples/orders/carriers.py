"""The carriers: parcel companies, reached over the internet, and not always there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from .home import transaction

REGIONS = {"North": "Northern Post", "South": "Sunny Parcels", "East": "Dawn Express", "Highlands": "Mule & Sons"}
"""Who carries where. Nobody goes to the far islands."""

HICCUPS = {"Mule & Sons": 5}
"""How many calls about one parcel fail before a carrier's system answers. Those of the others always do."""


class Carriers:
    def __init__(self, path: Path) -> None:
        self._path = path

    def set_up(self) -> None:
        """Make the carriers' records. What is there already stays as it is."""
        with transaction(self._path) as connection:
            for table in TABLES:
                connection.execute(table)

    async def book(self, key: str, carrier: str, order_id: str) -> str:
        """Book a parcel and get its tracking number. Raises `ConnectionError` when the carrier does not answer."""
        return await asyncio.to_thread(self._book, key, carrier, order_id)

    async def cancel(self, key: str, booking_key: str, order_id: str) -> None:
        """Cancel what was booked under `booking_key`. If that has not come yet, it will not be let in any more."""
        await asyncio.to_thread(self._cancel, key, booking_key, order_id)

    def _book(self, key: str, carrier: str, order_id: str) -> str:
        with transaction(self._path) as connection:
            connection.execute("INSERT INTO calls VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1", (key,))
            (calls,) = connection.execute("SELECT count FROM calls WHERE key = ?", (key,)).fetchone()
            answers = calls > HICCUPS.get(carrier, 0)
            if answers:
                connection.execute("INSERT OR IGNORE INTO bookings VALUES (?, ?, ?, 1)", (key, order_id, carrier))
            cancelled = connection.execute("SELECT 1 FROM bookings WHERE key = ? AND parcels = 0", (key,)).fetchone()
        if not answers or cancelled:
            raise ConnectionError(f"{carrier} {'was told to forget it' if cancelled else 'does not answer'}")
        return f"{carrier[:2].upper()}-{order_id[-8:]}"

    def _cancel(self, key: str, booking_key: str, order_id: str) -> None:
        with transaction(self._path) as connection:
            booked = connection.execute("SELECT carrier FROM bookings WHERE key = ?", (booking_key,)).fetchone()
            if booked is None:
                connection.execute("INSERT INTO bookings VALUES (?, ?, '', 0)", (booking_key, order_id))
            elif booked != ("",):
                connection.execute("INSERT OR IGNORE INTO bookings VALUES (?, ?, ?, -1)", (key, order_id, *booked))


TABLES = (
    "CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, count INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS bookings (key TEXT PRIMARY KEY, order_id TEXT, carrier TEXT, parcels INTEGER)",
)
