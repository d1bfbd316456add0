"""What the library's keywords share: the service in use, and the run's own mark."""

from __future__ import annotations

import secrets

from testyard.core.errors import UserError
from testyard.pipelines.cleanup import mark_of
from testyard.pipelines.service import PipelineService


class Session:
    """One robot process's state.

    Attributes:
        url: Where the service is.
        run: The run's id, with which the ids of its customers end.
        customers: The ids that were given to customers since the service is in use.
        keys: The API keys of those whom suites act as, by the names of their sessions.
    """

    def __init__(self) -> None:
        self.url = ""
        self.run = f"ty{secrets.token_hex(3)}"
        self.customers: list[str] = []
        self.keys: dict[str, str] = {}
        self._service: PipelineService | None = None

    @property
    def service(self) -> PipelineService:
        """The service in use.

        Raises:
            UserError: None is.
        """
        if self._service is None:
            message = "No pipeline service is in use: 'Connect To Pipeline Service' first."
            raise UserError(message)
        return self._service

    def use(self, service: PipelineService, url: str) -> None:
        """Use a service from now on."""
        self.leave()
        self._service, self.url = service, url

    def leave(self) -> None:
        """Disconnect; safe to call again."""
        if self._service is not None:
            self._service.close()
        self._service = None
        self.customers.clear()
        self.keys.clear()

    def customer(self, name: str) -> str:
        """The id under which this run has a customer."""
        customer = name + mark_of(self.run)
        # A pattern such as % stands for all of them.
        if name.isidentifier() and customer not in self.customers:
            self.customers.append(customer)
        return customer
