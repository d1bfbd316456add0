"""The lab's side of a Waldur double's control API: faults, and what the double saw."""

from __future__ import annotations

from typing import Any

from testyard.core.json_client import JsonClient


class WaldurControl:
    """Switches faults of one Waldur double and reads its journal.

    Args:
        client: Speaks to the control API with the control token.
    """

    def __init__(self, client: JsonClient) -> None:
        self._client = client

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def ready(self) -> dict[str, Any]:
        """Name, pid, boot id and staff user of the running double."""
        answer: dict[str, Any] = self._client.get("/ready")
        return answer

    def journal(self, after: int = 0) -> list[dict[str, Any]]:
        """The requests and markers with a sequence number above ``after``, oldest first."""
        entries: list[dict[str, Any]] = self._client.get("/journal", after=after)["entries"]
        return entries

    def events(self) -> list[dict[str, Any]]:
        """Every event that was published, with the queues it went to."""
        entries: list[dict[str, Any]] = self._client.get("/events")["events"]
        return entries

    def mark(self, text: str) -> None:
        """Write a marker line into the double's own journal."""
        self._client.post("/marker", {"text": text})

    def active_faults(self) -> dict[str, dict[str, Any]]:
        """The faults in force by name, with their parameters."""
        active: dict[str, dict[str, Any]] = self._client.get("/faults")["active"]
        return active

    def set_fault(self, name: str, **parameters: Any) -> None:
        """Switch a fault on."""
        self._client.call("PUT", f"/faults/{name}", body=parameters)

    def clear_fault(self, name: str) -> None:
        """Switch a fault off; no error when it is not on."""
        self._client.call("DELETE", f"/faults/{name}")

    def clear_faults(self) -> None:
        """Switch every fault off."""
        self._client.call("DELETE", "/faults")

    def reset(self) -> None:
        """Empty the double as if it had just been started: data, journals, queues, connections and faults."""
        self._client.post("/reset")

    def drop_stomp_connections(self) -> int:
        """Cut every STOMP connection; returns how many there were."""
        return int(self._client.post("/stomp/drop")["dropped"])

    def stomp_connections(self) -> list[dict[str, Any]]:
        """The open STOMP connections with their queues' depths."""
        connections: list[dict[str, Any]] = self._client.get("/stomp/connections")
        return connections

    def shell(self, operation: str, **parameters: Any) -> Any:
        """Do what needs a Django shell on a real Waldur."""
        return self._client.post(f"/shell/{operation}", parameters)
