"""The in-memory broker passes the suite of the port."""

from tests.contract.broker import BrokerContract

from amends.brokers import Broker, MemoryBroker


class TestMemoryBroker(BrokerContract):
    async def open(self) -> Broker:
        if self._opened and isinstance(first := self._opened[0], MemoryBroker):
            return first.join()
        return MemoryBroker(delivery_limit=self.delivery_limit)
