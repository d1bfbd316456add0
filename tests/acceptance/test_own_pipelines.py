"""The suites run against somebody's own pipeline service; what a killed run left is deleted on demand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from acceptance_support import ENDS_WITHIN, PROJECT, RobotRun, Run, leaks_in
from testyard.lab.supervisor.pipelines import PipelineLab

SUITES = PROJECT / "suites" / "pipelines"
PHASES = SUITES / "10__the_eight_phases.robot"
API = "/api/v1/customers"
ON_OWN = ("--variable", "LAB:none")
API_KEY = re.compile(r"_ty[0-9a-f]{6}_api_[A-Za-z0-9_-]{8}")


@pytest.fixture(scope="module")
def service() -> Iterator[PipelineLab]:
    with PipelineLab() as lab:
        yield lab


def _environment(service: PipelineLab) -> dict[str, str]:
    return {
        "PIPELINES_URL": service.url,
        "PIPELINES_ADMIN_KEY": service.admin_key,
        "PIPELINES_DATABASE_URL": service.database_url,
        "PIPELINES_TEST_CLOCK": "true",
    }


def _onboard(service: PipelineLab, customer: str) -> None:
    body: dict[str, Any] = {"tenant_id": customer, "company_name": customer, "admin_email": "a@example.org"}
    service.client.post(f"{API}/onboard", body)


def _is_known(service: PipelineLab, customer: str) -> bool:
    return service.client.send("GET", f"{API}/{customer}").status_code == 200


def test_the_phases_pass_on_an_own_service_and_leave_nothing(service: PipelineLab, tmp_path: Path) -> None:
    with RobotRun(
        tmp_path / "own", *ON_OWN, "--loglevel", "TRACE", PHASES, environment=_environment(service)
    ) as run:
        run.finish(ENDS_WITHIN)
        assert run.process.returncode == 0, run.stdout[-2000:]
        assert "This run creates, changes and deletes customers named '…_ty" in run.stdout
        mark = run.stdout.split("testyard cleanup --run ")[1].split()[0]
        written = run.written()
    password = urlsplit(service.database_url).password
    assert leaks_in(written, [service.admin_key, str(password)]) == []
    assert "/customers/onboard" in written["output.xml"]
    assert [name for name, text in written.items() if API_KEY.search(text)] == []
    assert not _is_known(service, f"acme_corp_{mark}")
    assert not _is_known(service, f"globex_inc_{mark}")


def test_without_a_service_every_scenario_says_what_to_set(tmp_path: Path) -> None:
    with RobotRun(tmp_path / "none", *ON_OWN, PHASES) as run:
        run.finish(ENDS_WITHIN)
        assert run.process.returncode == 0
        assert "8 tests, 0 passed, 0 failed, 8 skipped" in run.stdout


def test_cleanup_deletes_the_customers_of_one_run_only(service: PipelineLab, tmp_path: Path) -> None:
    for customer in ("acme_corp_ty0a0a0a", "late_ty0a0a0a", "acme_corp_ty0b0b0b"):
        _onboard(service, customer)
    with Run(
        tmp_path / "cleanup", "testyard", "cleanup", "--run", "ty0a0a0a", environment=_environment(service)
    ) as cleanup:
        cleanup.finish(ENDS_WITHIN)
        assert (cleanup.process.returncode, cleanup.stderr) == (0, "")
        assert cleanup.stdout.splitlines() == ["acme_corp_ty0a0a0a: deleted", "late_ty0a0a0a: deleted"]
    assert _is_known(service, "acme_corp_ty0b0b0b")
    assert not _is_known(service, "late_ty0a0a0a")
