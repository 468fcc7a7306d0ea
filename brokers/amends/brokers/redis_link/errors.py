"""What Redis says, in plain words with a remedy."""

from __future__ import annotations

from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from amends.contracts import AmendsError, InternalError, TransientError

_ON: Final = "Work goes on by itself"

_PASSWORD: Final = "wants a password. Put it into the URL (redis://user:password@host)"

_SAID: Final = {
    "OOM": (
        f"is full: its memory has reached maxmemory. Raise maxmemory, or purge sagas that ended long ago. {_ON}",
        "used memory > 'maxmemory'",
    ),
    "READONLY": (
        f"is a read-only replica. Name the primary, or its sentinels (redis+sentinel://…). {_ON}",
        "You can't write against a read only",
    ),
    "MISCONF": (
        f"refuses to write because it cannot save to its disk. Make room, or see its log. {_ON}",
        "errors writing to",
    ),
    "NOREPLICAS": (f"has fewer replicas than its min-replicas-to-write. {_ON}", "Not enough good replicas"),
    "LOADING": (f"is loading its data. {_ON}", "loading the dataset"),
    "MASTERDOWN": (f"has lost its primary. {_ON}", "Link with MASTER is down"),
    "CLUSTERDOWN": (f"belongs to a cluster that is down. {_ON}", "The cluster is down"),
    "BUSY": (f"is busy with somebody's long script. {_ON}", "is busy running a script"),
    "NOPERM": (
        "does not let this user work ({said}). Give it the keys of its namespace (~amends:*) and the commands it lacks",
        "has no permissions",
    ),
    "NOAUTH": (_PASSWORD, "Authentication required"),
    # of a longer command, Redis reads no further than its length
    "unauthenticated": (_PASSWORD, "Protocol error: unauthenticated"),
    "WRONGPASS": ("refuses this user or password. Check the URL, or the server's ACL", "invalid username-password"),
}


class RedisUnavailable(TransientError):
    """Redis cannot be reached, or cannot write now. What was under way may or may not have been stored."""


def translate(error: Exception, where: str) -> AmendsError:
    """An error of redis-py in amends' terms."""
    said = str(error)
    name = f"Redis at {where}"
    if isinstance(error, BusyLoadingError):
        return RedisUnavailable(f"{name} {_SAID['LOADING'][0]}")
    for code, (words, sign) in _SAID.items():
        if said.startswith(f"{code} ") or sign in said:
            return RedisUnavailable(f"{name} {words.format(said=said.rstrip('.'))}")
    if isinstance(error, AuthenticationError):
        return RedisUnavailable(f"{name} refuses this user or password ({said}). Check the URL, or the server's ACL")
    if isinstance(error, TimeoutError | OSError) and not isinstance(error, ConnectionError):
        return RedisUnavailable(f"{name} does not answer ({said or type(error).__name__}). {_ON} when it does")
    if isinstance(error, ConnectionError):
        return RedisUnavailable(f"{name} cannot be reached ({said}). {_ON} when it can")
    if isinstance(error, ResponseError | RedisError):
        return InternalError(f"{name} refused a command: {said}")
    raise error
