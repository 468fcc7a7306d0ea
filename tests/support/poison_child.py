"""A coordinator in a process of its own whose saga kills it over one order: `poison_child.py BROKER STORE`."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.support.rig import Release, Reserve, Reserved

from amends.coordinator import Coordinator, Saga, step

POISON = "poison"


class Errand(Saga):
    sku: str

    @step
    def reserve(self) -> Reserve:
        return Reserve(sku=self.sku)

    @reserve.on_success
    def reserved(self, reply: Reserved) -> None:
        if self.sku == POISON:
            os._exit(9)

    @reserve.compensation
    def release(self) -> Release:
        return Release()


if __name__ == "__main__":
    asyncio.run(Coordinator([Errand], broker=sys.argv[1], store=sys.argv[2]).run())
