"""An embedded STOMP 1.2 broker over WebSocket.

It stands in for RabbitMQ with ``rabbitmq_web_stomp`` where that cannot be installed, and keeps to RabbitMQ's
conventions where the specification is silent: virtual hosts, destinations, header names, error texts, requeueing.
"""

from testyard.lab.broker.broker import Broker, ConnectionSnapshot, QueueNotFoundError
from testyard.lab.broker.queues import PublishOutcome
from testyard.lab.broker.websocket import websocket_routes

__all__ = ["Broker", "ConnectionSnapshot", "PublishOutcome", "QueueNotFoundError", "websocket_routes"]
