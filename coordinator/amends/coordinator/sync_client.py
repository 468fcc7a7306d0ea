"""The client for programs without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Generic, Self, overload

from typing_extensions import TypeVar

from amends.contracts import Duration, Event, Reply, Signal
from amends.contracts.payloads import Recorded
from amends.coordinator.client import Handle, SagaClient
from amends.coordinator.core.journal import JournalRecord
from amends.coordinator.core.snapshot import Snapshot
from amends.coordinator.declaration.saga import Saga
from amends.coordinator.outcome import Outcome
from amends.coordinator.store import SagaQuery, SagaSummary

T = TypeVar("T")
SagaT = TypeVar("SagaT", bound=Saga, default=Saga)


class SyncHandle(Generic[SagaT]):
    """`Handle`, for programs without an event loop."""

    def __init__(self, client: SyncSagaClient, handle: Handle[SagaT]) -> None:
        self._client, self._handle = client, handle
        self.id, self.existing = handle.id, handle.existing

    def result(self, timeout: Duration | None = None) -> Outcome[SagaT]:
        """See `Handle.result`."""
        return self._client._wait(self._handle.result(timeout))

    def outcome(self) -> Outcome[SagaT]:
        """See `Handle.outcome`."""
        return self._client._wait(self._handle.outcome())

    def state(self) -> SagaT:
        """See `Handle.state`."""
        return self._client._wait(self._handle.state())

    def signal(self, signal: Signal, *, id: str | None = None) -> None:
        """See `SagaClient.signal`."""
        self._client._wait(self._handle.signal(signal, id=id))

    def cancel(self, reason: str) -> None:
        """See `SagaClient.cancel`."""
        self._client._wait(self._handle.cancel(reason))


class SyncSagaClient:
    """`SagaClient`, for programs without an event loop: the same methods, which block.

    It keeps a loop in a thread of its own between entering and leaving the `with` block; any thread may use it. It
    takes URLs only, since brokers and stores belong to the loop they were made in.
    """

    def __init__(self, *, broker: str | None = None, store: str | None = None, timeout: Duration = 30.0) -> None:
        self._client = SagaClient(broker=broker, store=store, timeout=timeout)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="amends-client", daemon=True)

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._wait(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._wait(self._client.__aexit__(*error))
        finally:
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @overload
    def start(self, saga: SagaT, /, *, id: str) -> SyncHandle[SagaT]: ...
    @overload
    def start(
        self, saga: str, input: Mapping[str, Any], /, *, id: str, version: int | None = None
    ) -> SyncHandle[Saga]: ...
    def start(
        self, saga: Any, input: Mapping[str, Any] | None = None, /, *, id: str, version: int | None = None
    ) -> SyncHandle[Any]:
        """See `SagaClient.start`."""
        return SyncHandle(self, self._wait(self._client.start(saga, input or {}, id=id, version=version)))

    def run(self, saga: SagaT, /, *, id: str, timeout: Duration | None = None) -> Outcome[SagaT]:
        """See `SagaClient.run`."""
        return self._wait(self._client.run(saga, id=id, timeout=timeout))

    @overload
    def handle(self, id: str, saga: type[SagaT]) -> SyncHandle[SagaT]: ...
    @overload
    def handle(self, id: str) -> SyncHandle[Saga]: ...
    def handle(self, id: str, saga: type[Any] | None = None) -> SyncHandle[Any]:
        """See `SagaClient.handle`."""
        return SyncHandle(self, Handle(self._client, id, saga))

    def publish(self, event: Event, *, id: str | None = None, subject: str = "") -> None:
        """See `SagaClient.publish`."""
        self._wait(self._client.publish(event, id=id, subject=subject))

    def signal(self, saga_id: str, signal: Signal, *, id: str | None = None) -> None:
        """See `SagaClient.signal`."""
        self._wait(self._client.signal(saga_id, signal, id=id))

    def cancel(self, saga_id: str, *, reason: str, by: str = "") -> str:
        """See `SagaClient.cancel`."""
        return self._wait(self._client.cancel(saga_id, reason=reason, by=by))

    def pause(self, saga_id: str, *, reason: str = "", by: str = "") -> None:
        """See `SagaClient.pause`."""
        self._wait(self._client.pause(saga_id, reason=reason, by=by))

    def resume(self, saga_id: str, *, by: str = "") -> None:
        """See `SagaClient.resume`."""
        self._wait(self._client.resume(saga_id, by=by))

    def retry(
        self, saga_id: str, step: str | None = None, *, by: str = "", expected_version: int | None = None
    ) -> None:
        """See `SagaClient.retry`."""
        self._wait(self._client.retry(saga_id, step, by=by, expected_version=expected_version))

    def skip(self, saga_id: str, step: str, *, reason: str, by: str = "", expected_version: int | None = None) -> None:
        """See `SagaClient.skip`."""
        self._wait(self._client.skip(saga_id, step, reason=reason, by=by, expected_version=expected_version))

    def resolve_forward(
        self,
        saga_id: str,
        step: str,
        reply: Reply | Recorded | None = None,
        *,
        reason: str,
        by: str = "",
        expected_version: int | None = None,
    ) -> None:
        """See `SagaClient.resolve_forward`."""
        told = self._client.resolve_forward(
            saga_id, step, reply, reason=reason, by=by, expected_version=expected_version
        )
        self._wait(told)

    def resolve_back(
        self, saga_id: str, step: str, *, reason: str, by: str = "", expected_version: int | None = None
    ) -> None:
        """See `SagaClient.resolve_back`."""
        self._wait(self._client.resolve_back(saga_id, step, reason=reason, by=by, expected_version=expected_version))

    def snapshot(self, saga_id: str) -> Snapshot:
        """See `SagaClient.snapshot`."""
        return self._wait(self._client.snapshot(saga_id))

    def journal(self, saga_id: str) -> Sequence[JournalRecord]:
        """See `SagaClient.journal`."""
        return self._wait(self._client.journal(saga_id))

    def find(self, query: SagaQuery | None = None) -> Sequence[SagaSummary]:
        """See `SagaClient.find`."""
        return self._wait(self._client.find(query))

    def count(self, query: SagaQuery | None = None) -> int:
        """See `SagaClient.count`."""
        return self._wait(self._client.count(query))
