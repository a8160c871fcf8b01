"""The Kafka engine of the log. `engine` implements the port; only this package imports aiokafka."""

from mesh.log.kafka.engine import KafkaLog, open_log

__all__ = ["KafkaLog", "open_log"]
