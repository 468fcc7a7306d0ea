"""The scripts that read and change the keys of `amends.coordinator.stores.redis.keys`.

Each is given every key that it touches, also those that may not exist. That is how a cluster knows, while it moves the
keys of a slot from one server to another, to let a script wait until they are all in one place.
"""

from __future__ import annotations

from typing import Final

from amends.brokers.redis_link import Script

_PACKAGE: Final = "amends.coordinator.stores.redis"


def _read(name: str, flags: str = "") -> Script:
    return Script.read(_PACKAGE, f"lua/{name}", flags)


COMMIT: Final = _read("commit")
LEASE: Final = _read("lease")
PARK: Final = _read("park")

# what frees memory may run when there is none left
CLEAR: Final = _read("clear", "allow-oom")
PURGE: Final = _read("purge", "allow-oom")
FORGET: Final = _read("forget", "allow-oom")
PARKED_SENT: Final = _read("parked_sent", "allow-oom")

BROWSE: Final = _read("browse", "no-writes")
EARLIEST: Final = _read("earliest", "no-writes")
HYDRATE: Final = _read("hydrate", "no-writes")
KINDS: Final = _read("kinds", "no-writes")
LOAD: Final = _read("load", "no-writes")
PEEK: Final = _read("peek", "no-writes")
TALLY: Final = _read("tally", "no-writes")
UNPARK: Final = _read("unpark", "no-writes")
