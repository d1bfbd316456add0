"""The health of a deployment: what was measured, what is wrong, and the JSON that says so (contract 2.7)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from testyard.lab.cluster.deployer.state_file import now

HISTORY: Final = ".health_history.jsonl"
ACTIVE: Final = "active"
NO_VOLUMES: Final = "none"


class IssueType(StrEnum):
    """What can be wrong; the lab has no volumes and no Terraform, so it never reports the issues of those."""

    SSH_UNREACHABLE = "ssh_unreachable"
    SERVICE_FAILED = "service_failed"
    COS_SSH_UNREACHABLE = "cos_ssh_unreachable"
    ADMINUI_UNREACHABLE = "adminui_unreachable"
    DB_PORT_UNREACHABLE = "db_port_unreachable"
    NO_DATA_VOLUMES = "no_data_volumes"
    BROKEN_VOLUME_SYMLINK = "broken_volume_symlink"
    CLOUD_INSTANCE_COUNT_MISMATCH = "cloud_instance_count_mismatch"
    TERRAFORM_REFRESH_FAILED = "terraform_refresh_failed"


class Severity(StrEnum):
    """How bad an issue is."""

    CRITICAL = "critical"
    WARNING = "warning"


CRITICAL_ISSUES: Final = frozenset({IssueType.SSH_UNREACHABLE, IssueType.SERVICE_FAILED})


class Stage(StrEnum):
    """How far a node has come: d when the database answers there and the cluster takes writes."""

    NONE = "none"
    SSH = "a"
    ADMIN_UI = "b"
    SERVICES = "c"
    COMPLETE = "d"


class HostMeasurement(NamedTuple):
    """What was seen of one node.

    Attributes:
        ssh: Why it does not answer over SSH with a boot id; empty when it does.
        ssh_is_dead: Whether nobody answers there; false where somebody does, even with a wrong key.
        admin_ui: Why its admin UI does not answer over HTTPS; empty when it does.
        database: Why its database does not answer; empty when it does.
        services: What ``systemctl is-active`` says of each service; empty when SSH does not answer.
        takes_writes: Whether its database takes writes: it is the primary.
    """

    ssh: str
    ssh_is_dead: bool
    admin_ui: str
    database: str
    services: Mapping[str, str]
    takes_writes: bool


class Issue(NamedTuple):
    """Something wrong.

    Attributes:
        type: What.
        host: The node; ``cluster`` when it is none of them.
        reason: What was seen, for people.
    """

    type: IssueType
    host: str
    reason: str

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return Severity.CRITICAL if self.type in CRITICAL_ISSUES else Severity.WARNING

    def __str__(self) -> str:
        return f"{self.host}: {self.type} ({self.severity}): {self.reason}"


class Health(NamedTuple):
    """The health of a deployment at one moment.

    Attributes:
        directory: The deployment's.
        timestamp: When it was measured; UTC.
        hosts: What was seen of each node.
        has_database: Whether the nodes should have a database.
        instances: How many nodes the datacentre says there are; None when it was not asked.
        database_service: The name of the database's service.
    """

    directory: Path
    timestamp: str
    hosts: Mapping[str, HostMeasurement]
    has_database: bool
    instances: int | None = None
    database_service: str = "database"

    @property
    def ssh_answers(self) -> bool:
        """Whether any node answers over SSH."""
        return not all(host.ssh_is_dead for host in self.hosts.values())

    @property
    def stage_d(self) -> bool:
        """Whether the cluster is complete."""
        if self.has_database:
            return any(host.takes_writes for host in self.hosts.values())
        return any(self.stage(host) is Stage.COMPLETE for host in self.hosts.values())

    def stage(self, host: HostMeasurement) -> Stage:
        """How far a node has come."""
        if host.ssh:
            return Stage.NONE
        if host.admin_ui:
            return Stage.SSH
        if any(state != ACTIVE for state in host.services.values()):
            return Stage.ADMIN_UI
        if not self.has_database:
            return Stage.COMPLETE
        takes_writes = any(each.takes_writes for each in self.hosts.values())
        return Stage.COMPLETE if takes_writes and not host.database else Stage.SERVICES

    @property
    def issues(self) -> list[Issue]:
        """Everything wrong, node by node."""
        found: list[Issue] = []
        for name, host in self.hosts.items():
            if host.ssh:
                found.append(Issue(IssueType.SSH_UNREACHABLE, name, host.ssh))
            for service, state in host.services.items():
                if state != ACTIVE:
                    found.append(Issue(IssueType.SERVICE_FAILED, name, f"service {service} is {state}"))
            if self.has_database and not self._container_answers(host):
                reason = host.ssh or "the database's service is not active"
                found.append(Issue(IssueType.COS_SSH_UNREACHABLE, name, reason))
            if host.admin_ui:
                found.append(Issue(IssueType.ADMINUI_UNREACHABLE, name, host.admin_ui))
            if self.has_database and host.database:
                found.append(Issue(IssueType.DB_PORT_UNREACHABLE, name, host.database))
        if self.instances is not None and self.instances != len(self.hosts):
            reason = f"the inventory names {len(self.hosts)} nodes, the datacentre has {self.instances}"
            found.append(Issue(IssueType.CLOUD_INSTANCE_COUNT_MISMATCH, "cluster", reason))
        return found

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.issues

    def as_json(self) -> dict[str, Any]:
        """The health JSON, by the contract's keys."""
        hosts, issues = self.hosts.values(), self.issues
        services = [state for host in hosts for state in host.services.values()]
        databases = [not host.database for host in hosts] if self.has_database else []
        containers = [self._container_answers(host) for host in hosts] if self.has_database else []
        return {
            "status": "issues_detected" if issues else "healthy",
            "exit_code": 1 if issues else 0,
            "timestamp": self.timestamp,
            "deployment_dir": str(self.directory),
            "checks": {
                "ssh": _counts([not host.ssh for host in hosts]),
                "adminui": _counts([not host.admin_ui for host in hosts]),
                "database": _counts(databases),
                "cos_ssh": _counts(containers),
                "services": {
                    "active": services.count(ACTIVE),
                    "failed": len(services) - services.count(ACTIVE),
                },
            },
            "issues_count": len(issues),
            "issues": [
                {"type": str(issue.type), "host": issue.host, "severity": str(issue.severity)} for issue in issues
            ],
            "hosts": {name: self._host_json(host) for name, host in self.hosts.items()},
        }

    def append_to_history(self) -> None:
        """Add the health JSON to the deployment's history, a line of it."""
        with (self.directory / HISTORY).open("a", encoding="utf-8") as history:
            history.write(json.dumps(self.as_json()) + "\n")

    def _host_json(self, host: HostMeasurement) -> dict[str, Any]:
        return {
            "ssh_ok": not host.ssh,
            "cos_ssh_ok": self._container_answers(host) if self.has_database else None,
            "services": dict(host.services),
            "volume_status": NO_VOLUMES,
            "cluster_status": str(self.stage(host)),
            "port_8443_ok": not host.admin_ui,
            "port_8563_ok": not host.database if self.has_database else None,
        }

    def _container_answers(self, host: HostMeasurement) -> bool:
        return host.services.get(self.database_service) == ACTIVE


def measured_now(
    directory: Path, hosts: Mapping[str, HostMeasurement], *, has_database: bool, instances: int | None
) -> Health:
    """The health of this moment."""
    return Health(directory.resolve(), now(), hosts, has_database, instances)


def _counts(passed: Sequence[bool]) -> dict[str, int]:
    return {"passed": sum(passed), "failed": len(passed) - sum(passed)}
