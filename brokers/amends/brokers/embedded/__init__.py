"""The embedded broker: one SQLite file, several processes, nothing to install."""

from amends.brokers.embedded.broker import EmbeddedBroker as EmbeddedBroker
