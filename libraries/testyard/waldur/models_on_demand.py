"""Loads the models of the agent's API client when each is first used.

``waldur_api_client.models`` defines 2400 classes as it is imported, which takes most of three seconds in every
process; the agent uses about 140 of them. Neither the agent nor its client is changed: every name gives the same
class as before, only later (PEP 562).
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

MODELS = "waldur_api_client.models"
IMPORTED = re.compile(r"^from \.(\w+) import (?:\(\s*)?(\w+)", re.MULTILINE)
OFFERED = re.compile(r'^    "(\w+)",$', re.MULTILINE)


def load_models_on_demand() -> None:
    """Let the models be imported one by one; leave them if already imported, or laid out otherwise."""
    if MODELS in sys.modules:
        return
    spec = find_spec(MODELS)
    if spec is None or spec.origin is None:
        return
    source = Path(spec.origin).read_text(encoding="utf-8")
    modules = {name: module for module, name in IMPORTED.findall(source)}
    if modules and modules.keys() == set(OFFERED.findall(source)):
        models = _package(spec, modules)
        sys.modules[MODELS] = models
        parent, _, name = MODELS.rpartition(".")
        setattr(sys.modules[parent], name, models)


def _package(spec: ModuleSpec, modules: Mapping[str, str]) -> ModuleType:
    package = module_from_spec(spec)

    def load(name: str) -> object:
        if name in modules:
            value = getattr(importlib.import_module(f"{MODELS}.{modules[name]}"), name)
            setattr(package, name, value)
            return value
        if name in modules.values():
            return importlib.import_module(f"{MODELS}.{name}")
        message = f"module {MODELS!r} has no attribute {name!r}"
        raise AttributeError(message)

    vars(package).update(__getattr__=load, __all__=tuple(modules), __dir__=lambda: sorted(modules))
    return package
