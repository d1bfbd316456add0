"""What users of the libraries get: documentation, quick imports, and a wheel that holds everything."""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import house_support as house
import pytest
from house_support import LIBRARIES, PROJECT
from robot.api import get_resource_model
from robot.parsing.model.statements import ResourceImport, VariablesImport

RESOURCES = sorted((PROJECT / "resources").glob("*.resource"))
KEYWORD = "*** Keywords ***\n"
IMPORT_SECONDS = 1.5


@pytest.fixture
def project(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Writes a small project."""

    def write(files: Mapping[str, str]) -> Path:
        for relative, text in files.items():
            path = tmp_path / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


# ---- documentation


@pytest.mark.parametrize("source", [*LIBRARIES, *RESOURCES], ids=lambda source: Path(source).name)
def test_everything_that_suites_use_is_documented_with_an_example(source):
    assert house.undocumented_keywords(source) == []


LIBRARY = '''
from robot.api.deco import keyword, library

@library(doc_format="MARKDOWN")
class Sample:
    """{library}"""

    @keyword
    def do_it(self, how: str, *, when: int = 1) -> None:
        """{keyword}"""
'''
GOOD = """Does it.

        Args:
            how: How.
            when: When.

        Example:
            | Do It | x |
        """


@pytest.mark.parametrize(
    ("library", "keyword", "said"),
    [
        ("", GOOD, ["Sample: has no documentation"]),
        ("Doc.", "", ["has no documentation", "does not document how", "does not document when"]),
        ("Doc.", GOOD.replace("Example", "Sample"), ["Do It has no example"]),
        ("Doc.", GOOD.replace("            when: When.\n", ""), ["Do It does not document when"]),
        ("Doc.", GOOD, []),
    ],
)
def test_missing_documentation_of_a_library_is_found(project, library, keyword, said):
    bad = project({"Sample.py": LIBRARY.format(library=library, keyword=keyword)})
    violations = house.undocumented_keywords(bad / "Sample.py")
    assert len(violations) == len(said)
    assert all(violation.endswith(end) for violation, end in zip(violations, said, strict=True))


@pytest.mark.parametrize(
    ("documentation", "said"),
    [("", "One has no documentation"), ("    [Documentation]    Does it.\n", "One has no example")],
)
def test_missing_documentation_of_a_resource_is_found(project, documentation, said):
    text = f"*** Settings ***\nDocumentation    x\n{KEYWORD}One\n{documentation}    No Operation\n"
    (violation,) = house.undocumented_keywords(project({"bad.resource": text}) / "bad.resource")
    assert violation.endswith(said)


# ---- what importing the libraries costs


def import_in_a_new_process(*modules: str) -> tuple[float, set[str]]:
    """How many seconds of computing importing takes, and which top-level modules are there then.

    Not the clock's seconds: a busy machine makes nothing heavier.
    """
    code = (
        "import sys, time\nstarted = time.process_time()\n"
        f"import {', '.join(modules)}\n"
        "print(time.process_time() - started, *{name.partition('.')[0] for name in sys.modules})"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    seconds, *names = output.split()
    return float(seconds), set(names)


def test_importing_the_libraries_is_quick_and_imports_no_agent():
    seconds, modules = import_in_a_new_process(*LIBRARIES)
    assert seconds < IMPORT_SECONDS
    for heavy in ("waldur_site_agent", "waldur_site_agent_waldur", "waldur_api_client", "starlette", "uvicorn"):
        assert heavy not in modules


def test_a_library_that_imports_the_agent_would_be_noticed(project, monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", str(project({"waldur_site_agent.py": "", "Heavy.py": "import waldur_site_agent"}))
    )
    assert "waldur_site_agent" in import_in_a_new_process("Heavy")[1]


# ---- what the wheel ships


def missing_from_the_wheel(project: Path) -> list[str]:
    """Files that the wheel's configuration leaves out although users of the wheel need them.

    Read from the configuration and not from a wheel, as the build backend is no dependency of the project.
    """
    configuration = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = configuration["tool"]["hatch"]["build"]["targets"]["wheel"]
    places = {path: place for place, path in shipped(project, wheel)}
    needed = [path for folder in ("libraries", "resources") for path in files_in(project / folder)]
    missing = [
        f"{path.relative_to(project).as_posix()} is not in the wheel" for path in needed if path not in places
    ]
    for resource in (path for path in places if path.suffix == ".resource"):
        for name in imported_files(resource):
            place = posixpath.normpath(posixpath.join(posixpath.dirname(places[resource]), name))
            # A variable in the name stands for one file or another.
            pattern = re.sub(r"\\\$\\\{\w+\\\}", "[^/]+", re.escape(place))
            if not any(re.fullmatch(pattern, known) for known in places.values()):
                missing.append(f"{places[resource]} imports {name}, which is not in the wheel as {place}")
    return missing


def files_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc"]


def imported_files(resource: Path) -> list[str]:
    model = get_resource_model(resource)
    return [it.name for it in house.statements(model) if isinstance(it, ResourceImport | VariablesImport)]


def shipped(project: Path, wheel: Mapping[str, object]) -> Iterator[tuple[str, Path]]:
    """The wheel's files, each with its place in it, as hatchling documents its options."""
    for included in wheel.get("only-include", []):
        for path in files_in(project / included):
            place = path.relative_to(project).as_posix()
            for source in wheel.get("sources", []):
                place = place.removeprefix(f"{source}/")
            yield place, path
    for included, place in wheel.get("force-include", {}).items():
        for path in files_in(project / included):
            yield f"{place}/{path.relative_to(project / included).as_posix()}", path


def test_the_wheel_ships_libraries_and_resources_and_what_these_import():
    assert missing_from_the_wheel(PROJECT) == []


WHEEL = """
[tool.hatch.build.targets.wheel]
only-include = ["libraries"]
sources = ["libraries"]
[tool.hatch.build.targets.wheel.force-include]
"""
RESOURCE = "*** Settings ***\nVariables    ../variables/${ENV}.yaml\nResource    other.resource\n"


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        (WHEEL + '"resources" = "testyard/resources"\n"variables" = "testyard/variables"\n', []),
        (
            WHEEL + '"resources" = "testyard/resources"\n',
            ["testyard/resources/x.resource imports ../variables/${ENV}.yaml, which is not in the wheel as"],
        ),
        (WHEEL, ["resources/other.resource is not in the wheel", "resources/x.resource is not in the wheel"]),
        (
            WHEEL.replace('["libraries"]', '["libraries/testyard"]')
            + '"resources" = "testyard/resources"\n"variables" = "testyard/variables"\n',
            ["libraries/SomeLibrary.py is not in the wheel"],
        ),
    ],
    ids=["complete", "no variables", "no resources", "no libraries"],
)
def test_what_the_wheel_lacks_is_found(project, configuration, said):
    sample = project(
        {
            "pyproject.toml": configuration,
            "libraries/SomeLibrary.py": "",
            "libraries/testyard/py.typed": "",
            "resources/x.resource": RESOURCE,
            "resources/other.resource": KEYWORD,
            "variables/embedded.yaml": "",
        }
    )
    missing = missing_from_the_wheel(sample)
    assert len(missing) == len(said)
    assert all(line.startswith(start) for line, start in zip(missing, said, strict=True))
