"""The Java that servers of the lab run on; it comes with the system's packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from testyard.lab.children import LabError

LEAST_VERSION = 17
JAVA_COMMAND = "apt install openjdk-17-jre-headless"
ANSWER_SECONDS = 20


class JavaError(LabError):
    """There is no Java that is new enough."""


@dataclass(frozen=True)
class Java:
    """An installed Java.

    Attributes:
        program: The path of ``java``.
        version: Its feature version, such as 17.
        build: All that it says of its version.
    """

    program: Path
    version: int
    build: str


def find_java(environment: Mapping[str, str] = os.environ) -> Java:
    """The Java of ``JAVA_HOME``, else the one on the ``PATH``.

    Args:
        environment: The environment variables.

    Raises:
        JavaError: There is none, or it is too old; says how to get one.
    """
    advice = f"Java {LEAST_VERSION} or newer: {JAVA_COMMAND}, or set JAVA_HOME"
    home = environment.get("JAVA_HOME")
    program = Path(home, "bin", "java") if home else _on_path(environment)
    if program is None or not program.is_file():
        place = f"JAVA_HOME is {home}, which has no bin/java" if home else "there is no java on the PATH"
        message = f"It needs {advice}; {place}."
        raise JavaError(message)
    said = _said_of_its_version(program)
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    if found is None or int(found[1]) < LEAST_VERSION:
        version = f"is Java {found[1]}" if found else "does not say its version"
        message = f"It needs {advice}; {program} {version}."
        raise JavaError(message)
    return Java(program, int(found[1]), said)


def _on_path(environment: Mapping[str, str]) -> Path | None:
    found = shutil.which("java", path=environment.get("PATH", os.defpath))
    return Path(found) if found else None


@cache
def _said_of_its_version(program: Path) -> str:
    try:
        said = subprocess.run(
            [program, "-version"], capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stderr + said.stdout
