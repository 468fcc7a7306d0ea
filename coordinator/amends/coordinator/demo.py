"""The demo: the example of the orders, run from wherever it is."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from amends.contracts import UsageError

INSTALLED: Final = "amends.examples.orders"
"""Where a wheel has it."""

CHECKOUT: Final = Path(__file__).parents[3]
"""In an editable install, the folder of the repository; there it is `examples/orders`."""


def run_demo(arguments: Sequence[str] = ()) -> int:
    """Run the example with its own command-line arguments (`--count 100`, `--orders FILE`, …); gives its exit code.

    Raises `UsageError` when the example is not there.
    """
    code = _find("__main__").main(list(arguments))
    return int(code)


def _find(module: str) -> ModuleType:
    # the part before it is looked for first, since find_spec imports that
    if importlib.util.find_spec(INSTALLED.rpartition(".")[0]) and importlib.util.find_spec(INSTALLED):
        return importlib.import_module(f"{INSTALLED}.{module}")
    if (CHECKOUT / "examples" / "orders").is_dir():
        sys.path.insert(0, str(CHECKOUT))
        return importlib.import_module(f"examples.orders.{module}")
    raise UsageError("the example is not installed. Reinstall amends, or run `make demo` in a checkout")
