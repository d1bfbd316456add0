"""Keywords about who calls the service, and what must stay secret."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from robot.api import logger
from robot.api.deco import keyword
from robot.api.types import Secret
from robot.libraries.BuiltIn import BuiltIn
from testyard.core.errors import NotMetError, UserError
from testyard.core.json_client import JsonClient
from testyard.core.redact import secrets_in_use
from testyard.core.tables import html_table
from testyard.pipelines.cleanup import delete_customers
from testyard.pipelines.secrecy import check_none_is_in
from testyard.pipelines.service import PipelineService, configure_pipelines

from PipelineLibrary.session import Session

ADMIN_SESSION = "admin"
CONFIGURATION_COLUMNS = ("provider", "domain", "template_name", "schedule", "timezone", "priority", "config_id")


class CustomerKeywords:
    """Customers, their keys and their credentials."""

    _session: Session
    _made_up: list[str]
    _api_keys: list[str]

    @keyword(tags=["Setup"])
    def connect_to_pipeline_service(self, url: str, admin_key: Secret) -> None:
        """Use a service from now on, and open the RequestsLibrary session `admin` for it.

        Args:
            url: Scheme, host and port.
            admin_key: What admin calls carry in `X-Admin-Key`.

        Raises:
            UserError: The key cannot be a header's value.

        Example:
            | Connect To Pipeline Service | ${url} | ${key} |
        """
        client = JsonClient(
            url, headers={"X-Admin-Key": admin_key.value}, secret=admin_key.value, name="the pipeline service"
        )
        self._session.use(PipelineService(client), url)
        self._open_session(ADMIN_SESSION, {"X-Admin-Key": admin_key.value})

    @keyword(tags=["Setup"])
    def act_as_customer(self, session: str, api_key: Secret) -> None:
        """Open a RequestsLibrary session that calls the service as a customer.

        Args:
            session: What the session is called from now on.
            api_key: What the customer's calls carry in `X-API-Key`.

        Example:
            | Act As Customer | acme_corp | ${key} |
        """
        secrets_in_use.add(api_key.value)
        self._session.keys[session] = api_key.value
        self._open_session(session, {"X-API-Key": api_key.value})

    @keyword(tags=["Setup", "Evidence"])
    def configure_pipelines(self, session: str, pipelines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Configure pipelines of a customer, several at the same time, and draw a table of them.

        Args:
            session: The customer's, as `Act As Customer` called it.
            pipelines: What each call says of its pipeline.

        Returns:
            The configurations, in the same order.

        Raises:
            UnexpectedAnswerError: The service refused one; tells why. Others may have been made.
            UserError: Nobody acts as this customer.

        Example:
            | Configure Pipelines | acme_corp | ${pipelines} |
        """
        key = self._session.keys.get(session)
        if key is None:
            known = ", ".join(self._session.keys) or "(nobody)"
            message = f"Nobody acts as the customer {session!r}, expected one of {known}: 'Act As Customer' first."
            raise UserError(message)
        made = configure_pipelines(self._session.url, key, pipelines)
        rows = [tuple(configuration[column] for column in CONFIGURATION_COLUMNS) for configuration in made]
        logger.info(html_table(f"Configured: {len(rows)}", CONFIGURATION_COLUMNS, rows, folded=True), html=True)
        return made

    @keyword(tags=["Getter"])
    def id_of_customer(self, name: str) -> str:
        """The id under which this run has a customer: its name, and the run's own mark.

        Args:
            name: As suites call the customer.

        Example:
            | ${id} = | Id Of Customer | acme_corp |
        """
        return self._session.customer(name)

    @keyword(tags=["Setup"])
    def make_up_credentials(self, provider: str) -> dict[str, str]:
        """Credentials that open nothing, masked in every log as if they did.

        Args:
            provider: Whose they pretend to be.

        Example:
            | ${credentials} = | Make Up Credentials | GCP |
        """
        made_up = secrets.token_urlsafe(24)
        secrets_in_use.add(made_up)
        self._made_up.append(made_up)
        return {"provider": provider, "private_part": made_up}

    @keyword(tags=["Assertion"])
    def made_up_credentials_should_not_be_in(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Check that no cell of some rows holds what `Make Up Credentials` returned, in clear or only encoded.

        Args:
            rows: As a query returned them.

        Raises:
            NotMetError: Names the column.
            UserError: There are no rows, or nothing was made up.

        Example:
            | Made Up Credentials Should Not Be In | ${rows} |
        """
        check_none_is_in(rows, self._made_up, "credential")

    @keyword(tags=["Assertion"])
    def api_keys_should_not_be_in(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Check that no field of some items holds a key that `API Key In` has returned, nor its SHA-256 hash.

        Args:
            rows: JSON objects, or rows as a query returned them.

        Raises:
            NotMetError: Names the field.
            UserError: There are no items, or no key is known.

        Example:
            | API Keys Should Not Be In | ${answer.json()} |
        """
        hashes = [hashlib.sha256(key.encode()).hexdigest() for key in self._api_keys]
        check_none_is_in(rows, self._api_keys + hashes, "key or its hash")

    @keyword(tags=["Getter"])
    def only_one_with(self, items: Iterable[Mapping[str, Any]], field: str, value: str) -> Mapping[str, Any]:
        """The only one of some items in which a field has a value.

        Args:
            items: JSON objects.
            field: The field.
            value: Its value.

        Raises:
            NotMetError: None or several; tells which values there are.

        Example:
            | ${pipeline} = | Only One With | ${pipelines} | template_name | cost_billing |
        """
        listed = list(items)
        found = [item for item in listed if item.get(field) == value]
        if len(found) != 1:
            message = f"{len(found)} have {field} {value!r}, expected one: {[item.get(field) for item in listed]}."
            raise NotMetError(message)
        return found[0]

    @keyword(tags=["Getter"])
    def api_key_in(self, answer: Mapping[str, Any]) -> Secret:
        """The API key that an answer of the service brings, which it does once.

        Args:
            answer: The answer's JSON.

        Raises:
            UserError: It brings none.

        Example:
            | ${key} = | API Key In | ${answer.json()} |
        """
        key = answer.get("api_key")
        if not isinstance(key, str) or not key:
            message = f"The answer brings no API key; it has {', '.join(answer) or 'nothing'}."
            raise UserError(message)
        secrets_in_use.add(key)
        self._api_keys.append(key)
        return Secret(key)

    def _open_session(self, name: str, headers: dict[str, str]) -> None:
        requests_library = BuiltIn().get_library_instance("RequestsLibrary")
        # A repeated call would hide that the service answered 503.
        session = requests_library.create_session(name, self._session.url, headers=headers, max_retries=0)
        # Before RequestsLibrary logs the answer: the key in it is known to nobody yet.
        session.hooks["response"].append(_register_key)

    @keyword(tags=["Setup"])
    def announce_the_run(self) -> None:
        """Say what the run will make on your own service, and how to remove what a killed run leaves.

        Example:
            | Announce The Run |
        """
        logger.console(
            f"\nThis run creates, changes and deletes customers named '…_{self._session.run}' "
            f"on {self._session.url}, and nothing else.\n"
            f"If it is killed: testyard cleanup --run {self._session.run}"
        )

    @keyword(tags=["Setup"])
    def delete_the_customers_of_the_run(self) -> None:
        """Delete every customer that this suite has named, with all that belongs to them.

        Raises:
            NotMetError: One could not be deleted.

        Example:
            | Delete The Customers Of The Run |
        """
        left = [
            leftover
            for leftover in delete_customers(self._session.service, list(self._session.customers))
            if not leftover.ended
        ]
        if left:
            message = f"{len(left)} customers are left, the first: {left[0].name}: {left[0].outcome}"
            raise NotMetError(message)


def _register_key(response: Any, *_: Any, **__: Any) -> None:
    """Mask the API key in an answer, before anybody logs it."""
    if b"api_key" not in response.content:
        return
    try:
        answer = response.json()
    except ValueError:
        return
    if isinstance(answer, dict) and isinstance(answer.get("api_key"), str):
        secrets_in_use.add(answer["api_key"])
