"""A wrong configuration is one clear line: file, key, what was found; and never a token."""

import copy
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from testyard.core.errors import ConfigurationError, UserError
from testyard.core.redact import secrets_in_use
from testyard.waldur.configuration import (
    AgentConfiguration,
    OfferingConfiguration,
    configuration_in_memory,
    load_configuration,
    write_configuration,
)

SOURCE_TOKEN = "5eed0000aaaa5eed0000aaaa5eed0000aaaa0001"
TARGET_TOKEN = "5eed0000bbbb5eed0000bbbb5eed0000bbbb0002"
UUID = "d629d5e45567425da9cdbdc1af67b32c"
NOTHING: Any = object()

VALID: dict[str, Any] = {
    "timezone": "UTC",
    "offerings": [
        {
            "name": "Federation",
            "waldur_api_url": "http://127.0.0.1:8080/api/",
            "waldur_api_token": SOURCE_TOKEN,
            "waldur_offering_uuid": UUID,
            "backend_type": "waldur",
            "order_processing_backend": "waldur",
            "backend_settings": {
                "target_api_url": "https://waldur-b.example/api/",
                "target_api_token": TARGET_TOKEN,
                "target_offering_uuid": "d629d5e4-5567-425d-a9cd-bdc1af67b32c",
                "target_customer_uuid": UUID.upper(),
            },
            "backend_components": {
                "node_hours": {
                    "measured_unit": "Node-hours",
                    "unit_factor": 1.0,
                    "accounting_type": "limit",
                    "label": "Node Hours",
                    "target_components": {"cpu_k_hours": {"factor": 128.0}},
                },
            },
        }
    ],
}
OFFERING = "offerings.0"
SETTINGS = f"{OFFERING}.backend_settings"
COMPONENT = f"{OFFERING}.backend_components.node_hours"


def changed(key: str, value: Any) -> dict[str, Any]:
    """The valid configuration with one key changed, or removed."""
    content = copy.deepcopy(VALID)
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    holder: Any = content
    for part in path:
        holder = holder[part]
    if value is NOTHING:
        del holder[last]
    else:
        holder[last] = value
    return content


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes a configuration file."""

    def write(content: Any) -> Path:
        path = tmp_path / "agent.yaml"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


def refusal(path: Path) -> str:
    """The message with which a file is refused; always one line, with the file and no token."""
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1, message
    assert SOURCE_TOKEN not in message
    assert TARGET_TOKEN not in message
    assert caught.value.__cause__ is None
    return message.removeprefix(f"The agent configuration {path}").removeprefix(": ").strip()


# ---- what is fine


def test_a_valid_file_is_read(written):
    offering = load_configuration(written(VALID)).offering
    assert offering.name == "Federation"
    assert offering.backend_settings.target_offering_uuid == "d629d5e4-5567-425d-a9cd-bdc1af67b32c"
    assert offering.backend_components["node_hours"].target_components["cpu_k_hours"].factor == 128


def test_what_may_be_left_out_has_the_agents_own_defaults(written):
    offering = load_configuration(written(VALID)).offering
    assert (offering.stomp_enabled, offering.websocket_use_tls, offering.verify_ssl) == (False, True, True)
    assert (offering.stomp_ws_host, offering.stomp_ws_port, offering.stomp_ws_path) == (None, None, None)
    backend = offering.backend_settings
    assert backend.target_stomp_enabled is False
    assert (backend.user_match_field, backend.user_resolve_method) == ("cuid", "identity_bridge")


def test_the_first_offering_is_the_federated_one(written):
    content = copy.deepcopy(VALID)
    content["offerings"].append(content["offerings"][0] | {"name": "Other"})
    assert load_configuration(written(content)).offering.name == "Federation"


def test_keys_of_the_agent_that_testyard_does_not_know_are_kept(written):
    content = changed(f"{SETTINGS}.identity_bridge_source", "isd:x")
    offering = load_configuration(written(content)).offering
    assert offering.backend_settings.model_extra == {"identity_bridge_source": "isd:x"}


def test_the_tokens_are_masked_from_now_on(written):
    tokens = [secrets.token_hex(20) for _ in range(4)]
    content = copy.deepcopy(VALID)
    content["offerings"].append(copy.deepcopy(content["offerings"][0]))
    for offering, source, target in zip(content["offerings"], tokens[::2], tokens[1::2], strict=True):
        offering["waldur_api_token"] = source
        offering["backend_settings"]["target_api_token"] = target
    load_configuration(written(content))
    assert secrets_in_use.mask(" ".join(tokens)) == "*** *** *** ***"


def test_the_tokens_are_not_in_the_configurations_repr(written):
    configuration = load_configuration(written(VALID))
    assert SOURCE_TOKEN not in repr(configuration)
    assert TARGET_TOKEN not in repr(configuration)


# ---- files that are no configuration


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "nowhere.yaml") == "cannot be read: No such file or directory."


def test_a_directory_is_named(tmp_path):
    assert refusal(tmp_path) == "cannot be read: Is a directory."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a mapping with 'offerings', got nothing."),
        ("# only a comment\n", "expected a mapping with 'offerings', got nothing."),
        ("- a\n", "expected a mapping with 'offerings', got list."),
        ("just text", "expected a mapping with 'offerings', got text."),
        ("42", "expected a mapping with 'offerings', got number."),
        (
            "offerings:\n\t- x\n",
            "is not YAML at line 2, column 1: found character '\\t' that cannot start any token.",
        ),
        ("offerings: [\n", "is not YAML at line 2, column 1: "),
        ("a: 1\n---\nb: 2\n", "is not YAML at line 2, column 1: but found another document."),
        ("offerings: !!python/object:os.system {}\n", "is not YAML at line 1, column 12: could not determine"),
        ("name: Müller".encode("latin-1"), "is not YAML: not UTF-8 text."),
        (b"\xff\xfe\x00", "is not YAML: not UTF-8 text."),
        (bytes(range(128, 256)), "is not YAML: not UTF-8 text."),
    ],
)
def test_what_is_no_configuration_is_refused(written, content, message):
    assert refusal(written(content)).startswith(message)


def test_a_control_character_is_not_called_an_encoding_error(written):
    message = refusal(written("name: a\x07b\n"))
    assert "not UTF-8" not in message
    assert message.startswith("is not YAML")


def test_a_date_that_does_not_exist_is_refused_like_other_yaml(written):
    # PyYAML raises a bare ValueError for it.
    assert refusal(written("started: 2024-13-45\n")).startswith("is not YAML")


# ---- wrong keys


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("offerings", NOTHING, "is missing"),
        ("offerings", None, "Input should be a valid list, got nothing."),
        ("offerings", [], "List should have at least 1 item"),
        ("offerings", 3, "Input should be a valid list, got number 3"),
        (f"{OFFERING}.name", NOTHING, "is missing"),
        (f"{OFFERING}.name", 7, "Input should be a valid string, got number 7"),
        (f"{OFFERING}.waldur_api_url", NOTHING, "is missing"),
        (f"{OFFERING}.waldur_api_url", "waldur.example", "got text 'waldur.example'"),
        (f"{OFFERING}.waldur_api_url", "ftp://waldur.example", "got text 'ftp://waldur.example'"),
        (f"{OFFERING}.waldur_api_url", "http://127.0.0.1:port/", "got text 'http://127.0.0.1:port/'"),
        (f"{OFFERING}.waldur_api_token", NOTHING, "is missing"),
        (f"{OFFERING}.waldur_api_token", None, "got nothing."),
        (f"{OFFERING}.waldur_api_token", "", "got text."),
        (f"{OFFERING}.waldur_api_token", 1234567890, "got number ***."),
        (f"{OFFERING}.waldur_api_token", [SOURCE_TOKEN], "got list."),
        (f"{OFFERING}.waldur_offering_uuid", "my-offering", "is not a UUID, got text 'my-offering'"),
        (f"{OFFERING}.waldur_offering_uuid", UUID[:-1], "is not a UUID"),
        (f"{OFFERING}.waldur_offering_uuid", "g" * 32, "is not a UUID"),
        (f"{OFFERING}.backend_type", "slurm", "Input should be 'waldur', got text 'slurm'"),
        (f"{OFFERING}.order_processing_backend", NOTHING, "is missing"),
        (f"{OFFERING}.stomp_enabled", "perhaps", "got text 'perhaps'"),
        (f"{OFFERING}.stomp_ws_port", "https", "got text 'https'"),
        (SETTINGS, NOTHING, "is missing"),
        (f"{SETTINGS}.target_api_url", "//b", "got text '//b'"),
        (f"{SETTINGS}.target_api_token", {"value": TARGET_TOKEN}, "got mapping."),
        (f"{SETTINGS}.target_customer_uuid", "", "is not a UUID, got text ''"),
        (f"{SETTINGS}.user_match_field", "name", "got text 'name'"),
        (f"{SETTINGS}.user_resolve_method", True, "got boolean True"),
        (f"{OFFERING}.backend_components", {}, "at least 1 item"),
        (f"{OFFERING}.backend_components", ["node_hours"], "got list."),
        (f"{COMPONENT}.measured_unit", NOTHING, "is missing"),
        (f"{COMPONENT}.unit_factor", "one", "got text 'one'"),
        (f"{COMPONENT}.accounting_type", "limits", "got text 'limits'"),
        (f"{COMPONENT}.target_components.cpu_k_hours.factor", 0, "greater than 0, got number 0"),
        (f"{COMPONENT}.target_components.cpu_k_hours.factor", -1.5, "greater than 0, got number -1.5"),
        (f"{COMPONENT}.target_components.cpu_k_hours.factor", "many", "got text 'many'"),
        (f"{COMPONENT}.target_components.cpu_k_hours.factor", float("nan"), "got number nan"),
        (f"{COMPONENT}.target_components.cpu_k_hours", 128, "got number 128"),
        (f"{COMPONENT}.target_components.cpu_k_hours.facter", 128.0, "got number 128.0"),
    ],
)
def test_a_wrong_key_is_named_with_what_was_found(written, key, value, found):
    message = refusal(written(changed(key, value)))
    assert message.startswith(f"key {key}: ")
    assert found in message
    assert "more)" not in message


def test_of_several_wrong_keys_the_first_is_named_and_the_others_counted(written):
    content = changed(f"{OFFERING}.name", NOTHING)
    content["offerings"][0]["waldur_offering_uuid"] = "x"
    content["offerings"][0]["backend_components"]["node_hours"]["unit_factor"] = "one"
    message = refusal(written(content))
    assert message.startswith(f"key {OFFERING}.name: is missing")
    assert message.endswith("(2 more)")


def test_the_number_of_the_wrong_offering_is_in_the_key(written):
    content = copy.deepcopy(VALID)
    content["offerings"].append(content["offerings"][0] | {"backend_type": "slurm"})
    assert refusal(written(content)).startswith("key offerings.1.backend_type: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("offerings", lambda token: {"name": "Federation", "waldur_api_token": token}),
        ("offerings", lambda token: {"Federation": {"waldur_api_token": token}}),
        ("offerings", lambda token: token),
        ("offerings", lambda token: f"waldur_api_token {token}"),
        (OFFERING, lambda token: f"waldur_api_token: {token}"),
        (OFFERING, lambda token: ["waldur_api_token", token]),
        (SETTINGS, lambda token: [{"target_api_token": token}]),
        (SETTINGS, lambda token: f"target_api_token={token}"),
        (f"{SETTINGS}.target_stomp_enabled", lambda token: {"target_api_token": token}),
        (f"{SETTINGS}.target_offering_uuid", lambda token: token),
        (f"{OFFERING}.waldur_api_url", lambda token: f"https://{token}@waldur.example:port/"),
        (f"{OFFERING}.waldur_api_token", lambda token: [token]),
    ],
    ids=[
        "offerings is one offering",
        "offerings by name",
        "offerings is the token",
        "offerings is text",
        "an offering is text",
        "an offering is a list",
        "settings are a list",
        "settings are text",
        "the token is indented too far",
        "the token stands for a UUID",
        "the token is in the address",
        "the token is in a list",
    ],
)
def test_a_token_in_the_wrong_place_is_not_shown(written, key, value):
    # A fresh one each time: what another test registered is masked anyway.
    token = secrets.token_hex(20)
    message = refusal(written(changed(key, value(token))))
    assert message.startswith(f"key {key}: ")
    assert token not in message


def test_a_lost_secret_is_refused_with_the_way_out(written):
    with pytest.raises(UserError, match="'<secret>'"):
        load_configuration(written(changed(f"{OFFERING}.waldur_api_token", "<secret>")))


# ---- writing


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "agent.yaml"
    write_configuration(path, VALID)
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == VALID
    assert load_configuration(path).model_dump(exclude_unset=True) == VALID


def test_only_this_user_can_read_what_is_written(tmp_path):
    path = tmp_path / "agent.yaml"
    write_configuration(path, VALID)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_only_this_user_can_read_what_replaces_a_file_that_anybody_could_read(tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text("old: and longer than nothing at all\n" * 200)
    path.chmod(0o644)
    write_configuration(path, VALID)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == VALID


@pytest.mark.parametrize("key", [f"{OFFERING}.waldur_api_token", f"{SETTINGS}.target_api_token"])
def test_a_lost_secret_is_never_written(tmp_path, key):
    path = tmp_path / "agent.yaml"
    with pytest.raises(UserError, match="'<secret>'"):
        write_configuration(path, changed(key, "<secret>"))
    assert not path.exists()


def test_texts_of_any_language_survive_writing(tmp_path):
    path = tmp_path / "agent.yaml"
    content = changed(f"{OFFERING}.name", "Föderation 連合")
    write_configuration(path, content)
    assert load_configuration(path).offering.name == "Föderation 連合"


# ---- the mapping of components


def mapping(**components: dict[str, float]) -> OfferingConfiguration:
    """A configuration with these components, each with its targets and factors."""
    content = copy.deepcopy(VALID)
    template = content["offerings"][0]["backend_components"]["node_hours"]
    content["offerings"][0]["backend_components"] = {
        source: template
        | {"target_components": {target: {"factor": factor} for target, factor in targets.items()}}
        for source, targets in components.items()
    }
    return AgentConfiguration.model_validate(content).offering


ONE_TO_MANY = {"cpu_k_hours": 128.0, "gpu_hours": 4.0, "storage_gb_hours": 0.5}
MANY_TO_ONE = {"cpu_hours": {"credits": 1.0}, "gpu_hours": {"credits": 10.0}}


@pytest.mark.parametrize(
    ("components", "limits", "expected"),
    [
        ({"cpu": {}}, {"cpu": 7}, {"cpu": 7}),
        ({"node_hours": {"cpu_k_hours": 128.0}}, {"node_hours": 2}, {"cpu_k_hours": 256}),
        (
            {"node_hours": ONE_TO_MANY},
            {"node_hours": 6},
            {"cpu_k_hours": 768, "gpu_hours": 24, "storage_gb_hours": 3},
        ),
        (MANY_TO_ONE, {"cpu_hours": 5, "gpu_hours": 3}, {"credits": 35}),
        (MANY_TO_ONE, {"cpu_hours": 0, "gpu_hours": 0}, {"credits": 0}),
        (MANY_TO_ONE, {"gpu_hours": 3}, {"credits": 30}),
        ({"cpu": {}, "gpu": {"cpu": 8.0}}, {"cpu": 1, "gpu": 2}, {"cpu": 17}),
        (MANY_TO_ONE, {}, {}),
    ],
)
def test_limits_on_b_are_the_source_times_the_factor_summed_per_target(components, limits, expected):
    assert mapping(**components).target_limits(limits) == expected


# Powers of two multiply and add without rounding.
FACTORS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 128.0])
AMOUNTS = st.integers(0, 10**6)


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.dictionaries(st.sampled_from("xyz"), FACTORS), min_size=1),
    st.data(),
)
def test_converting_twice_the_limits_gives_twice_the_amounts(components, data):
    configuration = mapping(**components)
    limits = {source: data.draw(AMOUNTS) for source in components}
    once = configuration.target_limits(limits)
    doubled = configuration.target_limits({source: 2 * amount for source, amount in limits.items()})
    assert doubled == {target: 2 * amount for target, amount in once.items()}


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.dictionaries(st.sampled_from("xyz"), FACTORS), min_size=1),
    st.data(),
)
def test_what_is_sent_to_b_are_exactly_the_components_that_b_must_have(components, data):
    configuration = mapping(**components)
    limits = {source: data.draw(AMOUNTS) for source in components}
    assert set(configuration.target_limits(limits)) == set(configuration.origins_of_target_components())


@pytest.mark.parametrize(
    ("components", "origins"),
    [
        ({"cpu": {}}, {"cpu": "cpu x 1"}),
        (
            {"node_hours": ONE_TO_MANY},
            {
                "cpu_k_hours": "node_hours x 128",
                "gpu_hours": "node_hours x 4",
                "storage_gb_hours": "node_hours x 0.5",
            },
        ),
        (MANY_TO_ONE, {"credits": "cpu_hours x 1 + gpu_hours x 10"}),
    ],
)
def test_a_target_component_tells_where_its_amount_comes_from(components, origins):
    assert mapping(**components).origins_of_target_components() == origins


def test_a_configuration_in_memory_is_read_like_a_file_and_is_nobody_elses():
    path = configuration_in_memory({"offerings": ["one"]})
    assert path.read_text() == "offerings:\n- one\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_nlink == 0, "it has a name in a directory"
    with pytest.raises(UserError, match="<secret>"):
        configuration_in_memory({"token": "<secret>"})
