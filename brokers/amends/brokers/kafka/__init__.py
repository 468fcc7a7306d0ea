"""Kafka as the broker. Needs the extra: `pip install "amends[kafka]"`."""

from amends.brokers.kafka.broker import KafkaBroker as KafkaBroker
from amends.brokers.kafka.options import KafkaOptions as KafkaOptions
from amends.brokers.kafka.publisher import MessageTooLarge as MessageTooLarge
