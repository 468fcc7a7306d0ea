"""The RabbitMQ adapter: quorum queues, publisher confirms, one coordinator per shard at a time."""

from amends.brokers.rabbitmq.broker import RabbitmqBroker as RabbitmqBroker
