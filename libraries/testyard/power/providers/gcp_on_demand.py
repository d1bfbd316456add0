"""Imports of google-cloud-compute only what the power of instances needs.

``google.cloud.compute_v1`` imports the clients of more than a hundred services as it is imported, which takes as
long again as all the rest. The package is not changed: it is filled when anything else of it is asked for (PEP
562), here or anywhere in the process.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

PACKAGE = "google.cloud.compute_v1"


def import_compute() -> tuple[Any, Any]:
    """The module with the client of instances, and the one with the types.

    Raises:
        ImportError: google-cloud-compute is not installed.
    """
    if PACKAGE not in sys.modules:
        _put_package()
    services = importlib.import_module(f"{PACKAGE}.services.instances")
    types = importlib.import_module(f"{PACKAGE}.types.compute")
    return services, types


def _put_package() -> None:
    spec = find_spec(PACKAGE)
    if spec is None or spec.loader is None:
        message = f"No module named {PACKAGE!r}"
        raise ImportError(message, name=PACKAGE)
    package = module_from_spec(spec)
    loader = spec.loader

    def load(name: str) -> object:
        if find_spec(f"{PACKAGE}.{name}") is not None:
            return importlib.import_module(f"{PACKAGE}.{name}")
        # Filled once; what it still lacks then, it does not have.
        vars(package).pop("__getattr__", None)
        loader.exec_module(package)
        return getattr(package, name)

    vars(package)["__getattr__"] = load
    sys.modules[PACKAGE] = package
    parent: ModuleType = sys.modules[PACKAGE.rpartition(".")[0]]
    vars(parent)[PACKAGE.rpartition(".")[2]] = package
