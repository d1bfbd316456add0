"""The JSON Schema of workflow files, made from the models: editors complete and check a file that names it.

``workflow.schema.json`` beside this module is what this makes of the built-in step types and checks; a test
compares them. ``python -m testyard.workflow.schema`` writes it anew. A file names it by ``"$schema"``. What
needs more than one place of a file to tell (unknown nodes, ``when``) is told by ``load_workflow`` only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from testyard.workflow.loading import default_checks, default_steps
from testyard.workflow.model import Parameters, Requirements, Step, Suite
from testyard.workflow.registry import CheckRegistry, RegisteredCheck, StepRegistry, StepType
from testyard.workflow.validation import nested_fields

SCHEMA_FILE = Path(__file__).with_name("workflow.schema.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def workflow_schema(steps: StepRegistry | None = None, checks: CheckRegistry | None = None) -> Schema:
    """The schema of files that use these step types and checks.

    Args:
        steps: The step types; without it, the built-in ones.
        checks: The checks; without it, the built-in ones.
    """
    steps, checks = steps or default_steps(), checks or default_checks()
    definitions: dict[str, Schema] = {"check": {"anyOf": [_check(check) for check in checks]}}
    alternatives = {"step": [], "placed_step": []}  # type: dict[str, list[Schema]]
    for entry in steps:
        schema = _step(entry, definitions)
        definitions[f"{entry.name}_step"] = schema
        alternatives["step"].append({"$ref": f"#/$defs/{entry.name}_step"})
        if "target_node" in schema["required"]:
            required = [name for name in schema["required"] if name != "target_node"]
            definitions[f"placed_{entry.name}_step"] = {**schema, "required": required}
            alternatives["placed_step"].append({"$ref": f"#/$defs/placed_{entry.name}_step"})
        else:
            alternatives["placed_step"].append(alternatives["step"][-1])
    for name, found in alternatives.items():
        definitions[name] = {"type": "object", "required": ["step"], "oneOf": found}
    suite = _suite(definitions)
    definitions["suite"] = suite
    return {
        "$schema": DIALECT,
        "title": "Workflow tests of a cluster",
        "type": "object",
        "$defs": dict(sorted(definitions.items())),
        "oneOf": [
            {
                "title": "Suites",
                "type": "object",
                "properties": {
                    "$schema": {"type": "string"},
                    "description": {"type": "string"},
                    "test_suites": {
                        "type": "object",
                        "minProperties": 1,
                        "additionalProperties": {"$ref": "#/$defs/suite"},
                    },
                },
                "required": ["test_suites"],
                "additionalProperties": False,
            },
            {
                "title": "A bare workflow, run with a provider that is given",
                "type": "object",
                "properties": {"$schema": {"type": "string"}, **suite["properties"]},
                "required": ["workflow"],
                "additionalProperties": False,
            },
        ],
    }


def rendered(schema: Schema) -> str:
    """The schema as the shipped file has it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _step(entry: StepType, definitions: dict[str, Schema]) -> Schema:
    schema = _plain(entry.model, definitions)
    schema["description"] = entry.description
    for name, marker in nested_fields(entry.model).items():
        schema["properties"][name]["items"] = {"$ref": f"#/$defs/{'step' if marker.concrete else 'placed_step'}"}
    for name in ("checks", "allow_failures"):
        if entry.name == "validate":
            schema["properties"][name]["items"] = {"$ref": "#/$defs/check"}
    # The type first: that is what a person writes first.
    schema["properties"] = {"step": schema["properties"].pop("step"), **schema["properties"]}
    return schema


def _suite(definitions: dict[str, Schema]) -> Schema:
    schema = _plain(Suite, definitions)
    del schema["properties"]["name"]
    schema["required"] = ["provider", "workflow"]
    schema["properties"]["workflow"]["items"] = {"$ref": "#/$defs/step"}
    schema["properties"]["parameters"] = {"$ref": "#/$defs/Parameters"}
    for model in (Parameters, Requirements):
        definitions[model.__name__] = _plain(model, definitions)
    return schema


def _plain(model: type[BaseModel], definitions: dict[str, Schema]) -> Schema:
    """A model's schema with its definitions moved to the file's, without what only Python needs."""
    schema = model.model_json_schema(ref_template="#/$defs/{model}")
    for name, definition in schema.pop("$defs", {}).items():
        if name != Step.__name__:
            definitions[name] = _tidy(definition)
    tidied: Schema = _tidy(schema)
    tidied.setdefault("required", [])
    return tidied


def _tidy(schema: Any) -> Any:
    """Without the titles that pydantic makes of names, and with docstrings as one line."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidied = {
        key: _tidy(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))
    }
    if isinstance(tidied.get("description"), str):
        tidied["description"] = " ".join(tidied["description"].replace("``", "'").split())
    return tidied


def _check(check: RegisteredCheck) -> Schema:
    schema: Schema = {"description": check.description}
    if not check.arguments:
        return {"const": check.name, **schema}
    return {"type": "string", "pattern": f"^{re.escape(check.name)}{''.join(_arguments(check))}$", **schema}


def _arguments(check: RegisteredCheck) -> Iterator[str]:
    for argument in check.arguments:
        name = argument.rstrip("?")
        values = "|".join(map(re.escape, check.values.get(name, ()))) or "[^:]+"
        yield f"(:({values})){'?' if argument.endswith('?') else ''}"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(rendered(workflow_schema()), encoding="utf-8")
