"""The store for several machines: Redis or Valkey, alone, with Sentinel, or as a cluster. Needs `amends[redis]`."""

from amends.coordinator.stores.redis.store import RedisStore as RedisStore
