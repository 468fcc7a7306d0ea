"""The public names of `amends.brokers`."""

import amends.brokers


def test_public_names() -> None:
    public = {name for name, value in vars(amends.brokers).items() if getattr(value, "__name__", "") == name}
    assert public == {
        "Broker",
        "BrokerUnavailable",
        "Consumer",
        "ConsumerClosed",
        "DeadLetter",
        "Delivery",
        "EmbeddedBroker",
        "MemoryBroker",
        "Outgoing",
        "Retention",
        "Returned",
        "ReturningBroker",
        "ShardMap",
        "connect_broker",
    }
