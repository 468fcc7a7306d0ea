"""How messages travel: the `Broker` port and its adapters."""

from amends.brokers.connect import connect_broker as connect_broker
from amends.brokers.embedded import EmbeddedBroker as EmbeddedBroker
from amends.brokers.memory import MemoryBroker as MemoryBroker
from amends.brokers.port import Broker as Broker
from amends.brokers.port import BrokerUnavailable as BrokerUnavailable
from amends.brokers.port import Consumer as Consumer
from amends.brokers.port import ConsumerClosed as ConsumerClosed
from amends.brokers.port import DeadLetter as DeadLetter
from amends.brokers.port import Delivery as Delivery
from amends.brokers.port import Outgoing as Outgoing
from amends.brokers.port import Returned as Returned
from amends.brokers.port import ReturningBroker as ReturningBroker
from amends.brokers.retention import Retention as Retention
from amends.brokers.shards import ShardMap as ShardMap
