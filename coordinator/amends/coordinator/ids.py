"""Ids of commits: unique among all processes that ever wrote to a store."""

import secrets
from itertools import count


class Ids:
    """Makes ids that are this maker's random prefix and a number. They hold neither `/` nor `~`."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(8)
        self._numbers = count(1)

    def next(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"
