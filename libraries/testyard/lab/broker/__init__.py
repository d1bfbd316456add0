"""An embedded STOMP 1.2 broker over WebSocket.

It stands in for RabbitMQ with ``rabbitmq_web_stomp`` where that cannot be installed, and keeps to RabbitMQ's
conventions where the specification is silent: virtual hosts, destinations, header names, error texts, requeueing.

Where RabbitMQ 3.10.8 was seen to be laxer than STOMP 1.2 the broker keeps to the specification: it closes after
every ERROR, answers a DISCONNECT that asks for a receipt, requires ``host``, and refuses a transaction that has
begun already. It also says with an ERROR what RabbitMQ drops silently: a SEND to a full queue or to an
``/amq/queue/`` that does not exist. It speaks version 1.2 only, and has queues but no topics, exchanges or
temporary queues.
"""

from testyard.lab.broker.broker import Broker, ConnectionSnapshot, QueueNotFoundError
from testyard.lab.broker.queues import PublishOutcome
from testyard.lab.broker.websocket import websocket_routes

__all__ = ["Broker", "ConnectionSnapshot", "PublishOutcome", "QueueNotFoundError", "websocket_routes"]
