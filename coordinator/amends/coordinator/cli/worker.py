"""One of several processes of `amends run --workers N`, as it sees itself.

Its standard input is a channel to the supervisor: it says there that it runs, and the end of the channel is the end of
the supervisor, however that came. That works wherever there are sockets, and whatever has killed the supervisor.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Final, Self

import structlog

log = structlog.get_logger("amends.coordinator")

VARIABLE: Final = "AMENDS_NUMBER_OF_THIS_WORKER"
READY: Final = b"r"


class Worker:
    """`number` counts from 1; the one that takes the place of a dead one has the same."""

    def __init__(self, number: int, channel: socket.socket, grace_s: float) -> None:
        self.number = number
        self._channel, self._grace_s = channel, grace_s
        threading.Thread(target=self._outlive_nobody, name="supervisor watch", daemon=True).start()

    @classmethod
    def of_a_supervisor(cls, grace_s: float) -> Self | None:
        """This process as a worker; None when no supervisor has started it.

        Processes that this one starts are no workers: variable and channel are not left to them.
        """
        number = os.environ.pop(VARIABLE, None)
        if number is None:
            return None
        channel = socket.socket(fileno=os.dup(0))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        return cls(int(number), channel, grace_s)

    def ready(self) -> None:
        """Tell the supervisor that this process works."""
        try:
            self._channel.send(READY)
        except OSError:
            # it is gone, which the watch sees too
            return

    def _outlive_nobody(self) -> None:
        """Stop as on SIGTERM when the supervisor is gone; at once, when that takes longer than handlers may."""
        try:
            self._channel.recv(1)
        except OSError as error:
            log.debug("the channel to the supervisor broke", problem=str(error))
        log.warning("the supervisor of this worker is gone; stopping")
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(self._grace_s)
        os._exit(128 + signal.SIGTERM)
