"""A process with nothing but the participant. For each line it reads, it tells the processor seconds it has spent."""

from __future__ import annotations

import asyncio
import sys
import time

from amends.coordinator.cli.runner import run
from benchmarks.order import shop_in_transactions


async def main(file: str) -> None:
    """Handle messages until the input ends."""
    loop = asyncio.get_running_loop()
    async with shop_in_transactions().running(f"embedded:{file}"):
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(time.process_time(), flush=True)


if __name__ == "__main__":
    run(main(sys.argv[1]))
