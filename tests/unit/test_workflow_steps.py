"""The document's steps: what they call, in which order, and what they do when something is refused."""

from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from testyard.core.errors import NotMetError
from testyard.power.planning import API_CALLS
from testyard.power.protocol import ProviderName
from testyard.power.transitions import CrashMethod, PowerApi, RestartMethod
from testyard.workflow.builtin_steps import register_builtin_steps
from testyard.workflow.cluster import Cluster
from testyard.workflow.context import Context
from testyard.workflow.deployer import Answer, Deployer, DeployerError
from testyard.workflow.integrity import Seed
from testyard.workflow.registry import StepRegistry
from testyard.workflow.settings import WorkflowSettings

REFUSED = "no"


class Recorder:
    """Notes each call of a part of the cluster; what is named in ``fails`` raises."""

    def __init__(self, name: str, calls: list[Any], answers: dict[str, Any], fails: dict[str, Exception]) -> None:
        self._name = name
        self._calls = calls
        self._answers = answers
        self._fails = fails
        self.seeded = True

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            name = f"{self._name}.{method}"
            self._calls.append((name, *arguments, *(f"{key}={value}" for key, value in options.items())))
            if name in self._fails:
                raise self._fails[name]
            return self._answers.get(name)

        return call


class Done:
    """A result of power control."""

    def as_json(self) -> dict[str, Any]:
        return {"node": "n12"}


class FakeCluster:
    """A cluster that does nothing and notes what it was told."""

    def __init__(
        self, *, power_api: PowerApi = PowerApi.DOCUMENT, has_database: bool = True, **fails: Exception
    ) -> None:
        self.calls: list[Any] = []
        problems = {name.replace("_", ".", 1): problem for name, problem in fails.items()}
        said = Answer(0, "one line\nanother\n", "")
        answers = {
            "deployer.deploy": said,
            "deployer.stop": said,
            "deployer.start": said,
            "deployer.status": {"status": "stopped"},
            "deployer.init_command": ("deployer", "init"),
            "power.stop_cluster": (Done(), Done()),
            "power.start_cluster": (Done(),),
            "integrity.keep_writing": "",
            "integrity.seed": Seed("s", 7),
        }
        answers |= {f"power.{name}_node": Done() for name in ("stop", "start", "restart", "crash")}
        self.answers = answers
        self.deployer = Recorder("deployer", self.calls, answers, problems)
        self.power = Recorder("power", self.calls, answers, problems)
        self.integrity = Recorder("integrity", self.calls, answers, problems)
        self.power_api = power_api
        self.has_database = has_database
        self.nodes = ()

    def node_sights(self) -> list[str]:
        return ["n11 running", "n12 stopped"]

    def deploy(self) -> Answer:
        self.calls.append(("deploy",))
        return self.answers["deployer.deploy"]

    def destroy(self) -> None:
        self.calls.append(("destroy",))

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


def do(
    cluster: FakeCluster, step: str, *, provider: str = "aws", **fields: Any
) -> tuple[dict[str, Any], list[str]]:
    """Do a step; its result, and what was logged."""
    steps = StepRegistry()
    register_builtin_steps(steps)
    entry = steps.find(step)
    assert entry is not None
    assert entry.function is not None
    said: list[str] = []
    context = Context(
        deploy_dir=Path("d"),
        provider=provider,
        parameters={"cluster_size": 3},
        cluster=cast(Cluster, cluster),
        log=said.append,
    )
    return dict(entry.function(context, entry.model.model_validate({"step": step, **fields})) or {}), said


def test_init_gives_the_deployer_the_suites_parameters() -> None:
    cluster = FakeCluster()
    assert do(cluster, "init")[0] == {"command": "deployer init"}
    assert cluster.calls[0] == ("deployer.init", "aws", {"cluster_size": 3})


@pytest.mark.parametrize("has_database", [True, False])
def test_deploy_seeds_the_table_where_there_is_a_database(has_database: bool) -> None:
    cluster = FakeCluster(has_database=has_database)
    result, said = do(cluster, "deploy")
    assert said == ["one line", "another"]
    assert (cluster.names == ["deploy", "integrity.seed"]) is has_database
    assert ("integrity" in result) is has_database


def test_a_database_that_takes_no_table_fails_the_deployment() -> None:
    cluster = FakeCluster(integrity_seed=psycopg.OperationalError(REFUSED))
    with pytest.raises(psycopg.OperationalError, match=REFUSED):
        do(cluster, "deploy")


def test_a_cluster_is_stopped_services_first_and_seen_to_be_stopped() -> None:
    cluster = FakeCluster()
    assert do(cluster, "stop_cluster")[0] == {"nodes": [{"node": "n12"}, {"node": "n12"}]}
    assert cluster.calls == [
        ("integrity.keep_writing",),
        ("deployer.stop", "services_only=True"),
        ("power.stop_cluster",),
        ("integrity.pause",),
        ("deployer.health", "update=True"),
        ("deployer.status",),
    ]


def test_a_cluster_that_is_not_stopped_in_the_end_fails_the_step() -> None:
    cluster = FakeCluster()
    cluster.answers["deployer.status"] = {"status": "stop_failed"}
    with pytest.raises(NotMetError, match="should be stopped, but is stop_failed: n11 running; n12 stopped"):
        do(cluster, "stop_cluster")


@pytest.mark.parametrize("step", ["stop_cluster", "start_cluster"])
def test_what_the_deployer_refuses_touches_no_power(step: str) -> None:
    cluster = FakeCluster(deployer_stop=DeployerError(REFUSED), deployer_start=DeployerError(REFUSED))
    with pytest.raises(DeployerError, match=REFUSED):
        do(cluster, step)
    assert not [name for name in cluster.names if name.startswith("power.")]


def test_a_cluster_is_started_and_waited_for() -> None:
    cluster = FakeCluster()
    do(cluster, "start_cluster")
    assert cluster.calls == [
        ("deployer.start", "wait=False"),
        ("power.start_cluster",),
        ("deployer.health", "update=True", "wait_for=database_ready"),
    ]


@pytest.mark.parametrize(
    ("step", "fields", "call"),
    [
        ("stop_node", {}, ("power.stop_node", "n12")),
        ("restart_node", {}, ("power.restart_node", "n12", RestartMethod.SSH)),
        ("restart_node", {"method": "graceful"}, ("power.restart_node", "n12", RestartMethod.GRACEFUL)),
        ("crash_node", {}, ("power.crash_node", "n12", CrashMethod.SSH)),
        ("crash_node", {"method": "destroy"}, ("power.crash_node", "n12", CrashMethod.DESTROY)),
    ],
)
def test_rows_are_written_before_a_fault_acts(step: str, fields: dict[str, str], call: tuple[Any, ...]) -> None:
    cluster = FakeCluster()
    assert do(cluster, step, target_node="n12", **fields)[0] == {"node": "n12"}
    assert cluster.calls == [("integrity.keep_writing",), call]


def test_a_start_is_no_fault() -> None:
    cluster = FakeCluster()
    do(cluster, "start_node", target_node="n12")
    assert cluster.calls == [("power.start_node", "n12")]


@pytest.mark.parametrize(
    ("provider", "power_api", "writes"),
    [
        ("aws", PowerApi.DOCUMENT, True),
        ("libvirt", PowerApi.DOCUMENT, False),
        ("hetzner", PowerApi.DOCUMENT, False),
        ("hetzner", PowerApi.EXTENDED, True),
    ],
)
def test_a_fault_that_is_refused_anyway_needs_no_rows(provider: str, power_api: PowerApi, writes: bool) -> None:
    cluster = FakeCluster(power_api=power_api)
    do(cluster, "stop_node", provider=provider, target_node="n12")
    assert ("integrity.keep_writing" in cluster.names) is writes


@pytest.mark.parametrize(("has_database", "seeded"), [(False, True), (True, False)])
def test_without_a_seeded_database_no_rows_are_written(has_database: bool, seeded: bool) -> None:
    cluster = FakeCluster(has_database=has_database)
    cluster.integrity.seeded = seeded
    do(cluster, "stop_node", target_node="n12")
    assert cluster.names == ["power.stop_node"]


def test_that_no_rows_can_be_written_is_told_and_hinders_no_fault() -> None:
    cluster = FakeCluster()
    cluster.answers["integrity.keep_writing"] = "no node is a primary"
    _, said = do(cluster, "crash_node", target_node="n12")
    assert said == ["No rows are written during crash_node ssh: no node is a primary."]
    assert cluster.names[-1] == "power.crash_node"


def test_destroy_ends_the_deployment() -> None:
    cluster = FakeCluster()
    do(cluster, "destroy")
    assert cluster.calls == [("destroy",)]


@pytest.mark.parametrize("provider", [ProviderName.AWS, ProviderName.AZURE, ProviderName.GCP])
def test_a_plan_names_the_providers_own_call(provider: ProviderName) -> None:
    steps = StepRegistry()
    register_builtin_steps(steps)
    entry = steps.find("crash_node")
    assert entry is not None
    assert entry.plan is not None
    cluster = Cluster(Path("d"), WorkflowSettings(), provider=provider)
    context = Context(deploy_dir=Path("d"), provider=provider, cluster=cluster)
    step = entry.model.model_validate({"step": "crash_node", "target_node": "n12", "method": "destroy"})
    (line,) = entry.plan(context, step)
    assert f"crash_node destroy on n12: {API_CALLS[provider]['crash']}; within 60 s" in line


def test_an_unsaid_size_is_planned_as_the_examples_have_it() -> None:
    steps = StepRegistry()
    register_builtin_steps(steps)
    entry = steps.find("stop_cluster")
    assert entry is not None
    assert entry.plan is not None
    cluster = Cluster(Path("d"), WorkflowSettings(), provider="aws")
    context = Context(deploy_dir=Path("d"), provider="aws", cluster=cluster)
    lines = entry.plan(context, entry.model.model_validate({"step": "stop_cluster"}))
    assert [line.split(":")[0] for line in lines[1:-1]] == [
        f"stop_cluster on n{number}" for number in (11, 12, 13)
    ]
    assert isinstance(cluster.deployer, Deployer)
