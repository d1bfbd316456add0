"""Keywords that open and end connections."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from robot.api import logger
from robot.api.deco import keyword
from robot.api.types import Secret
from testyard.core.errors import UserError
from testyard.kafka.connection import Compression, ProducerSettings
from testyard.kafka.target import Sasl, SaslMechanism, Target, Tls

from KafkaLibrary.session import Session


class ConnectionKeywords:
    """Keywords that open and end connections."""

    _session: Session

    @keyword(tags=["Setup"])
    def connect_to_kafka(
        self,
        bootstrap_servers: str,
        *,
        alias: str = "default",
        user: str | None = None,
        password: Secret | None = None,
        sasl_mechanism: SaslMechanism = SaslMechanism.PLAIN,
        use_tls: bool = False,
        ssl_cafile: Path | None = None,
        ssl_certfile: Path | None = None,
        ssl_keyfile: Path | None = None,
        ssl_password: Secret | None = None,
        ssl_check_hostname: bool = True,
        client_id: str = "testyard",
        idempotent: bool = True,
        compression: Compression | None = None,
        request_timeout: timedelta = timedelta(seconds=10),
        within: timedelta = timedelta(seconds=10),
    ) -> None:
        """Connect to Kafka, and make sure that its brokers can be reached at the addresses that they tell.

        Args:
            bootstrap_servers: `host:port`, several with commas between them.
            alias: How the connection is called from now on; an open one of that name is closed.
            user: Who connects, when the brokers ask (SASL).
            password: The user's password.
            sasl_mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
            use_tls: Whether the connection is encrypted; the files below turn it on too.
            ssl_cafile: Certificates (PEM) of the authorities to trust; the system's, when not given.
            ssl_certfile: The client's certificate (PEM), when the brokers want one.
            ssl_keyfile: Its private key, when that is in another file.
            ssl_password: What the private key is encrypted with.
            ssl_check_hostname: Whether a broker's certificate must be for the name that was connected to.
            client_id: How the brokers' logs call this client.
            idempotent: Whether a request that has to be repeated is written once only.
            compression: `GZIP`; `LZ4`, `SNAPPY` and `ZSTD` need further packages.
            request_timeout: How long a broker may take to answer before a request is repeated.
            within: Give up connecting after this time.

        Raises:
            UserError: Nothing answers, the credentials or certificates are refused, or a file cannot be read.

        Example:
            | Connect To Kafka | ${KAFKA} |
            | Connect To Kafka | ${KAFKA} | alias=audit | user=auditor | password=${PASSWORD} |
            | ... | sasl_mechanism=SCRAM-SHA-512 | ssl_cafile=${CURDIR}/authority.pem |
        """
        if (user is None) is not (password is None):
            message = "A user and a password belong together: give both or neither."
            raise UserError(message)
        tls = None
        if use_tls or ssl_cafile or ssl_certfile or ssl_keyfile:
            secret = ssl_password.value if ssl_password else ""
            tls = Tls(ssl_cafile, ssl_certfile, ssl_keyfile, secret, ssl_check_hostname)
        sasl = Sasl(user, password.value, sasl_mechanism) if user is not None and password is not None else None
        target = Target(bootstrap_servers, client_id, tls, sasl)
        producing = ProducerSettings(idempotent, compression, request_timeout)
        self._session.connections.open(target, alias=alias, producing=producing, within=within)
        logger.info(f"Connected '{alias}' to {target}.")

    @keyword(tags=["Setup"])
    def disconnect_from_kafka(self, alias: str = "default") -> None:
        """Close a connection; what is published and collected over it ends.

        Args:
            alias: The connection.

        Raises:
            UserError: There is none of that name; lists the open ones.

        Example:
            | Disconnect From Kafka | audit |
        """
        self._session.connections.close(alias)

    @keyword(tags=["Setup"])
    def disconnect_from_every_kafka(self) -> None:
        """Close every connection; there may be none.

        Example:
            | Disconnect From Every Kafka |
        """
        self._session.connections.close_all()
