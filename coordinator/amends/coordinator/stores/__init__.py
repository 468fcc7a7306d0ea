"""The stores: adapters of the `SagaStore` port."""

from amends.coordinator.stores.connect import connect_store as connect_store
from amends.coordinator.stores.memory import MemoryStore as MemoryStore
from amends.coordinator.stores.sqlite import SqliteStore as SqliteStore
