"""Models loaded on demand are the very classes that the API client offers; each in an interpreter of its own."""

import json
import subprocess
import sys
from pathlib import Path

LIBRARIES = Path(__file__).parents[2] / "libraries"
ON_DEMAND = "from testyard.waldur.models_on_demand import load_models_on_demand as load; load()"
EVERY_MODEL = """
import json
import waldur_api_client.models as models
kinds = {name: getattr(models, name) for name in models.__all__}
print(json.dumps({name: [kind.__module__, kind.__qualname__] for name, kind in kinds.items()}))
"""
HOW_MANY = """
import sys
import waldur_api_client.models
print(sum(name.startswith("waldur_api_client.models.") for name in sys.modules))
"""


def _run(*statements: str) -> str:
    code = "\n".join((f"import sys; sys.path.insert(0, {str(LIBRARIES)!r})", *statements))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_every_name_gives_the_same_class() -> None:
    """2400 names, each from the module that the client's own package takes it from."""
    as_it_is = json.loads(_run(EVERY_MODEL))
    assert len(as_it_is) > 2000
    assert json.loads(_run(ON_DEMAND, EVERY_MODEL)) == as_it_is


def test_none_is_loaded_before_it_is_used() -> None:
    """This is what the start of every run saves."""
    assert int(_run(ON_DEMAND, HOW_MANY)) == 0
    assert int(_run(HOW_MANY)) > 2000


def test_models_that_are_loaded_already_stay() -> None:
    """Whoever imported the client before the agent keeps its classes."""
    same = "import waldur_api_client.models as before"
    after = "import waldur_api_client.models as after; print(before is after)"
    assert _run(same, ON_DEMAND, after).strip() == "True"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """As any module says it."""
    attempt = "print(*(hasattr(models, name) for name in ('Nothing', 'order_details')))"
    assert _run(ON_DEMAND, "import waldur_api_client.models as models", attempt).split() == ["False", "True"]
