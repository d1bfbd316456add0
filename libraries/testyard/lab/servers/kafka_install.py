"""Apache Kafka's server, installed from Maven Central into a directory of the user: no root, no Maven.

Which files it consists of is pinned in ``kafka_jars.json``: the server, what it needs at run time, and the part of
Log4j that lets it log; each with its SHA-256.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

import httpx

from testyard.core.json_client import trusted_certificates
from testyard.core.redact import secrets_in_use
from testyard.lab.servers.downloads import Download, DownloadError, shown
from testyard.lab.servers.java import Java, JavaError, find_java

LOCK_FILE = Path(__file__).with_name("kafka_jars.json")
INSTALL_COMMAND = "python -m testyard lab install kafka"
REPOSITORY_VARIABLE = "MAVEN_REPOSITORY_URL"
MAVEN_CENTRAL = "https://repo1.maven.org/maven2"
CACHE_VARIABLE = "TESTYARD_CACHE"
ANSWER_TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True)
class Jar:
    """A file of Maven's repository layout.

    Attributes:
        group: Its group id.
        artifact: Its artifact id.
        version: Its version.
        sha256: Its checksum.
        size: How many bytes it has.
    """

    group: str
    artifact: str
    version: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """Its file name."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def path(self) -> str:
        """Where it is in a repository."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.name}"


@dataclass(frozen=True)
class Release:
    """One version of Apache Kafka.

    Attributes:
        version: Its version.
        jars: The files that it consists of, in the order of the class path.
    """

    version: str
    jars: tuple[Jar, ...]

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return sum(jar.size for jar in self.jars)


@dataclass(frozen=True)
class Installation:
    """An installed Kafka and the Java to run it with.

    Attributes:
        release: Which one.
        directory: Where its files are.
        java: What it runs on.
    """

    release: Release
    directory: Path
    java: Java

    @property
    def class_path(self) -> str:
        """All its files, as Java wants them."""
        return os.pathsep.join(str(self.directory / jar.name) for jar in self.release.jars)

    @property
    def class_archive(self) -> Path:
        """The classes as this Java has them in memory: with it a broker starts in half the time (JEP 310)."""
        build = hashlib.sha256(self.java.build.encode()).hexdigest()[:16]
        return self.directory / f"classes-{build}.jsa"


@cache
def locked_release() -> Release:
    """The version that this version of testyard installs."""
    content = json.loads(LOCK_FILE.read_text(encoding="utf-8"))
    return Release(content["version"], tuple(Jar(**jar) for jar in content["jars"]))


def installation_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the server is, or would be: below ``TESTYARD_CACHE``, else below the user's cache directory.

    Args:
        environment: The environment variables.
    """
    chosen = environment.get(CACHE_VARIABLE)
    caches = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home(), ".cache")
    cache_directory = Path(chosen) if chosen else Path(caches, "testyard")
    return cache_directory.absolute() / "kafka" / locked_release().version


def installed_kafka(environment: Mapping[str, str] = os.environ) -> Installation:
    """The installed server.

    Args:
        environment: The environment variables.

    Raises:
        DownloadError: It is not installed, or not all of it; says how to.
        JavaError: There is no Java for it; says how to get one.
    """
    release, directory = locked_release(), installation_directory(environment)
    if not all(download.is_there for download in _downloads(release, directory, "")):
        message = f"Apache Kafka {release.version} is not installed: {INSTALL_COMMAND}."
        raise DownloadError(message)
    return Installation(release, directory, find_java(environment))


def missing_kafka(environment: Mapping[str, str] = os.environ) -> str:
    """Why the server cannot run here, with the command that helps; empty when it can."""
    try:
        installed_kafka(environment)
    except (DownloadError, JavaError) as problem:
        return str(problem)
    return ""


def install_kafka(
    say: Callable[[str], object], environment: Mapping[str, str] = os.environ, release: Release | None = None
) -> Path:
    """Download what is not there yet; a second installation at the same time waits for the first.

    Args:
        say: Is told what is done, in one line each.
        environment: The environment variables; ``MAVEN_REPOSITORY_URL`` names a mirror of Maven Central.
        release: What to install; the locked one when not given.

    Returns:
        The directory that has it.

    Raises:
        DownloadError: A file cannot be downloaded, or is not the pinned one. What is complete stays, and the next
            installation goes on from there.
    """
    release, directory = release or locked_release(), installation_directory(environment)
    repository = (environment.get(REPOSITORY_VARIABLE) or MAVEN_CENTRAL).rstrip("/")
    with _alone_in(directory):
        missing = [each for each in _downloads(release, directory, repository) if not each.is_there]
        if missing:
            _fetch_all(missing, repository, lambda text: say(f"Apache Kafka {release.version}: {text}"))
    return directory


def _fetch_all(downloads: list[Download], repository: str, say: Callable[[str], object]) -> None:
    megabytes = sum(each.size for each in downloads) / 1_000_000
    try:
        secrets_in_use.add(httpx.URL(repository).password)
        say(f"{len(downloads)} files, {megabytes:.0f} MB, from {shown(repository)}")
        with httpx.Client(timeout=ANSWER_TIMEOUT.total_seconds(), verify=trusted_certificates()) as client:
            for download in downloads:
                download.fetch(client)
    except httpx.InvalidURL as problem:
        message = f"{REPOSITORY_VARIABLE} {repository!r} is no URL: {problem}."
        raise DownloadError(message) from None
    except DownloadError as problem:
        message = (
            f"{problem} Without a way to {shown(repository)}, let {REPOSITORY_VARIABLE} name a mirror of Maven "
            f"Central, or copy {downloads[0].target.parent} from a machine that has it."
        )
        raise DownloadError(message) from None


def _downloads(release: Release, directory: Path, repository: str) -> list[Download]:
    return [
        Download(f"{repository}/{jar.path}", directory / jar.name, jar.sha256, jar.size) for jar in release.jars
    ]


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Let no other process install into the directory."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    except OSError as problem:
        message = (
            f"{directory} cannot be written: {problem.strerror}. Let {CACHE_VARIABLE} name another directory."
        )
        raise DownloadError(message) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
