"""Pipelines of scripts and commands to wherever their keys are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from redis.exceptions import AskError, MovedError, NoScriptError, TryAgainError

from amends.brokers.redis_link.checks import Facts, look
from amends.brokers.redis_link.errors import RedisUnavailable, translate
from amends.brokers.redis_link.nodes import ClusterNodes, Node, Nodes, SingleNode
from amends.brokers.redis_link.scripts import Call, Script
from amends.brokers.redis_link.urls import RedisUrl

T = TypeVar("T")

_ROUNDS: Final = 10
_PAUSE_S: Final = 0.02


_PROBE: Final = Script("redis.call('SET', KEYS[1], '1') return 1")
_ROOM: Final = b"." * 500_000
"""Sent with a probe and not stored: at the very limit of Redis' memory something small would pass, and a batch not."""


class RedisLink:
    """A connection to one Redis, a Sentinel service or a cluster. Get it with `RedisLink.open`.

    Every call is safe to repeat by its own nature, and is repeated here only when Redis says that it was not done:
    NOSCRIPT, MOVED, ASK, TRYAGAIN. A lost connection is told to the caller, who alone knows what it means.
    """

    def __init__(self, url: RedisUrl, nodes: Nodes) -> None:
        self.url = url
        self._nodes = nodes
        self._facts = Facts()
        self._under_way: set[asyncio.Task[list[Any]]] = set()

    @classmethod
    async def open(cls, url: RedisUrl) -> RedisLink:
        """Connect, and warn of settings that would lose data. Raises `RedisUnavailable` or `UsageError`."""
        link = cls(url, ClusterNodes(url) if url.kind == "cluster" else SingleNode(url))
        try:
            await link._nodes.connect()
            link._facts = await look(link._nodes.primaries(), clustered=link._nodes.clustered)
        except BaseException:
            await link.close()
            raise
        return link

    @property
    def where(self) -> str:
        return self.url.where

    def together(self, items: Sequence[T], place: Callable[[T], str], most: int) -> Iterator[list[T]]:
        """Items in groups that one script call may handle: up to `most`, and in a cluster of one place only."""
        groups: dict[str, list[T]] = {"": list(items)}
        if self._nodes.clustered:
            groups = {}
            for item in items:
                groups.setdefault(place(item), []).append(item)
        for group in groups.values():
            for at in range(0, len(group), most):
                yield group[at : at + most]

    async def probe(self, keys: Sequence[str]) -> None:
        """Write one of these keys on each server, as durably as commits. Raises `RedisUnavailable` when that fails."""
        on_each: dict[Node, str] = {}
        for key in keys:
            on_each.setdefault(self._nodes.of(key), key)
        await self.run([_PROBE.call([key], [_ROOM]) for key in on_each.values()], durable=True)

    async def time(self) -> int:
        """The time of the server, in microseconds since 1970; in a cluster, of the one whose clock is ahead."""
        nodes = self._nodes.primaries()
        latest = 0
        for node, (answer,) in zip(
            nodes, await asyncio.gather(*(node.run([("TIME",)]) for node in nodes)), strict=True
        ):
            if isinstance(answer, Exception):
                raise translate(answer, node.where)
            seconds, micros = answer
            latest = max(latest, int(seconds) * 1_000_000 + int(micros))
        return latest

    async def run(self, calls: Sequence[Call], *, durable: bool = False) -> list[Any]:
        """Run these, those of one server in one pipeline, in order; give their answers.

        `durable`: wait for the replicas that the URL asks for. Whoever cancels this does not cancel what was sent.
        Raises `RedisUnavailable`: some of it may have been done.
        """
        if not calls:
            return []
        task = asyncio.ensure_future(self._run(calls, durable and self.url.durability.replicas > 0))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[list[Any]]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # or it would be told to nobody, loudly, when its caller was cancelled

    async def _run(self, calls: Sequence[Call], durable: bool) -> list[Any]:
        answers: list[Any] = [None] * len(calls)
        left: dict[int, Node | None] = dict.fromkeys(range(len(calls)))
        for n in range(_ROUNDS):
            left = await self._round(calls, left, answers, durable)
            if not left:
                return answers
            await asyncio.sleep(_PAUSE_S * n)
        raise RedisUnavailable(f"Redis at {self.where} is moving its data around. Work goes on by itself")

    async def _round(
        self, calls: Sequence[Call], left: dict[int, Node | None], answers: list[Any], durable: bool
    ) -> dict[int, Node | None]:
        """Try what is left: call numbers, with the server that ASK has named. Gives what is to be tried again."""
        parts: dict[Node, list[int]] = {}
        for index, asked in left.items():
            parts.setdefault(asked or self._nodes.of(calls[index].key), []).append(index)
        sent = [
            self._send(node, [(calls[index], left[index] is not None) for index in part], durable)
            for node, part in parts.items()
        ]
        told = [await sent[0]] if len(sent) == 1 else await asyncio.gather(*sent, return_exceptions=True)
        again: dict[int, Node | None] = {}
        missing: dict[Node, dict[Script, None]] = {}
        moved = False
        for (node, part), said in zip(parts.items(), told, strict=True):
            if isinstance(said, BaseException):
                raise said
            for index, answer in zip(part, said, strict=True):
                if not isinstance(answer, Exception):
                    answers[index] = answer
                elif isinstance(answer, NoScriptError) and (script := calls[index].script) is not None:
                    missing.setdefault(node, {})[script] = None
                    again[index] = left[index]
                elif isinstance(answer, MovedError):
                    moved, again[index] = True, None
                elif isinstance(answer, AskError):
                    again[index] = self._nodes.at(answer.host, answer.port)
                elif isinstance(answer, TryAgainError):
                    again[index] = left[index]
                else:
                    raise translate(answer, node.where)
        for node, scripts in missing.items():
            for answer in await node.run([("SCRIPT", "LOAD", script.text) for script in scripts]):
                if isinstance(answer, Exception):
                    raise translate(answer, node.where)
        if moved:
            await self._nodes.connect()
        return again

    async def _send(self, node: Node, calls: Sequence[tuple[Call, bool]], durable: bool) -> list[Any]:
        commands: list[tuple[Any, ...]] = []
        counted: list[int] = []
        for call, asking in calls:
            if asking:
                commands.append(("ASKING",))
            counted.append(len(commands))
            commands.append(call.words)
        if not durable:
            told = await node.run(commands)
            return [told[n] for n in counted]
        replicas, wait_ms = self.url.durability.replicas, round(self.url.durability.wait_s * 1000)
        # WAIT is about the writes of its own connection: without one, as when a repeated commit is recognised, it would
        # say yes at once. This write comes behind whatever the calls rely on, so its confirmation is theirs.
        tag = calls[0][0].key.partition("{")[2].partition("}")[0]
        beat = ("SET", f"{self.url.namespace}:{{{tag}}}:beat", "1")
        wait = ("WAITAOF", 1, replicas, wait_ms) if self._facts.waits_for_disk else ("WAIT", replicas, wait_ms)
        *told, beaten, waited = await node.run([*commands, beat, wait])
        for answer in (beaten, waited):
            if isinstance(answer, AskError | TryAgainError):
                raise RedisUnavailable(f"Redis at {node.where} is moving its data around. Work goes on by itself")
            if isinstance(answer, Exception):
                raise translate(answer, node.where)
        if (problem := _shortage(waited, replicas, wait_ms / 1000)) is not None:
            raise RedisUnavailable(f"Redis at {node.where}: {problem}. Work goes on by itself")
        return [told[n] for n in counted]

    async def close(self) -> None:
        """Wait for what was sent, then hang up."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._nodes.close()


def _shortage(waited: Any, replicas: int, wait_s: float) -> str | None:
    """What is missing by the answer of WAIT (how many replicas) or WAITAOF (whether its own disk, and how many)."""
    if not isinstance(waited, list):
        if waited >= replicas:
            return None
        return (
            f"only {waited} of {replicas} replicas have confirmed a write within {wait_s:g} s. Bring its replicas "
            "back, or ask for fewer (replicas=)"
        )
    local, reached = waited
    if not local:
        return f"it has not put a write on its own disk within {wait_s:g} s. Set appendfsync always, or raise wait="
    if reached >= replicas:
        return None
    return (
        f"only {reached} of {replicas} replicas have confirmed a write on their disks within {wait_s:g} s. Bring its "
        "replicas back, see that they have appendonly yes and appendfsync always, or ask for fewer (replicas=)"
    )
