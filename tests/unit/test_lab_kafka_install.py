"""Kafka is installed from a repository: each file once, whole, and only if it is the pinned one."""

from __future__ import annotations

import fcntl
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from testyard.__main__ import main
from testyard.core.deadline import Deadline, wait_until
from testyard.core.redact import secrets_in_use
from testyard.lab.servers import java, kafka_install
from testyard.lab.servers.downloads import DownloadError
from testyard.lab.servers.java import JavaError, find_java
from testyard.lab.servers.kafka_install import (
    Installation,
    Jar,
    Release,
    install_kafka,
    installation_directory,
    installed_kafka,
    locked_release,
    missing_kafka,
)

CONTENTS = {"first": b"first " * 1000, "second": b"second " * 2000}


@dataclass
class Repository:
    """A Maven repository on a loopback port.

    Attributes:
        files: What it has, by path.
        requests: What it was asked for: path and range.
        knows_ranges: Whether it can begin in the middle of a file.
        cuts: How many bytes the next answers have before the connection breaks; None is all of them.
        status: What it answers instead of a file; 200 for the file.
    """

    files: dict[str, bytes]
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    knows_ranges: bool = True
    cuts: list[int | None] = field(default_factory=list)
    status: int = 200
    url: str = ""


@pytest.fixture
def repository() -> Iterator[Repository]:
    """A repository with two jars."""
    repository = Repository({jar.path: CONTENTS[jar.artifact] for jar in RELEASE.jars})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, repository)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        repository.url = f"http://127.0.0.1:{server.server_port}/maven2"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield repository
        server.shutdown()
        thread.join()


def answer(handler: BaseHTTPRequestHandler, repository: Repository) -> None:
    path = handler.path.removeprefix("/maven2/")
    wanted = handler.headers.get("Range")
    repository.requests.append((path, wanted))
    if repository.status != 200 or path not in repository.files:
        handler.send_error(repository.status if repository.status != 200 else 404)
        return
    begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and repository.knows_ranges else 0
    content = repository.files[path][begin:]
    handler.send_response(206 if begin else 200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: repository.cuts.pop(0) if repository.cuts else None])
    handler.close_connection = True


def jar_of(artifact: str) -> Jar:
    content = CONTENTS[artifact]
    return Jar("org.example", artifact, "1.2", hashlib.sha256(content).hexdigest(), len(content))


RELEASE = Release("9.9", (jar_of("first"), jar_of("second")))
FIRST, SECOND = (jar.path for jar in RELEASE.jars)


@pytest.fixture
def install(repository: Repository, tmp_path: Path) -> Callable[[], Path]:
    """Installs the two jars from the repository."""
    return lambda: install_kafka([].append, variables(repository, tmp_path), RELEASE)


def variables(repository: Repository, cache: Path) -> dict[str, str]:
    return {"MAVEN_REPOSITORY_URL": repository.url, "TESTYARD_CACHE": str(cache)}


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != ".lock"}


ALL = {"first-1.2.jar": CONTENTS["first"], "second-1.2.jar": CONTENTS["second"]}


# ---- what is downloaded


def test_every_file_is_downloaded_once(repository: Repository, install: Callable[[], Path]) -> None:
    directory = install()
    assert files_in(directory) == ALL
    assert repository.requests == [(FIRST, None), (SECOND, None)]
    assert FIRST == "org/example/first/1.2/first-1.2.jar"
    install()
    assert len(repository.requests) == 2


def test_what_is_done_is_told(repository: Repository, tmp_path: Path) -> None:
    said: list[str] = []
    environment = variables(repository, tmp_path)
    install_kafka(said.append, environment, RELEASE)
    install_kafka(said.append, environment, RELEASE)
    assert said == [f"Apache Kafka 9.9: 2 files, 0 MB, from {repository.url}"]


def test_half_a_file_is_completed(repository: Repository, install: Callable[[], Path], tmp_path: Path) -> None:
    directory = installation_directory({"TESTYARD_CACHE": str(tmp_path)})
    directory.mkdir(parents=True)
    (directory / "first-1.2.jar.part").write_bytes(CONTENTS["first"][:2500])
    assert files_in(install()) == ALL
    assert repository.requests[0] == (FIRST, "bytes=2500-")


def test_half_a_file_is_begun_anew_where_no_range_is_known(
    repository: Repository, install: Callable[[], Path], tmp_path: Path
) -> None:
    repository.knows_ranges = False
    directory = installation_directory({"TESTYARD_CACHE": str(tmp_path)})
    directory.mkdir(parents=True)
    (directory / "first-1.2.jar.part").write_bytes(b"x" * 2500)
    assert files_in(install()) == ALL


@pytest.mark.parametrize("present", [b"x" * 6000, b"x" * 7000])
def test_a_part_that_is_wrong_or_too_long_is_not_kept(
    repository: Repository, install: Callable[[], Path], tmp_path: Path, present: bytes
) -> None:
    directory = installation_directory({"TESTYARD_CACHE": str(tmp_path)})
    directory.mkdir(parents=True)
    (directory / "first-1.2.jar.part").write_bytes(present)
    if len(present) == len(CONTENTS["first"]):
        with pytest.raises(DownloadError, match="is not the expected file"):
            install()
    assert files_in(install()) == ALL


def test_a_connection_that_breaks_is_made_again_and_the_file_completed(
    repository: Repository, install: Callable[[], Path]
) -> None:
    repository.cuts = [1000, 500]
    assert files_in(install()) == ALL
    assert repository.requests[:3] == [(FIRST, None), (FIRST, "bytes=1000-"), (FIRST, "bytes=1500-")]


def test_a_download_that_breaks_again_and_again_goes_on_in_the_next_installation(
    repository: Repository, install: Callable[[], Path], tmp_path: Path
) -> None:
    repository.cuts = [None, 1000, 1000, 1000]
    with pytest.raises(DownloadError, match=rf"^{re.escape(repository.url)}/{SECOND} cannot be downloaded: "):
        install()
    directory = installation_directory({"TESTYARD_CACHE": str(tmp_path)})
    assert sorted(files_in(directory)) == ["first-1.2.jar", "second-1.2.jar.part"]
    assert files_in(install()) == ALL
    assert repository.requests[-1] == (SECOND, "bytes=3000-")


def test_a_second_installation_at_a_time_waits_for_the_first(
    repository: Repository, install: Callable[[], Path], tmp_path: Path
) -> None:
    directory = installation_directory({"TESTYARD_CACHE": str(tmp_path)})
    directory.mkdir(parents=True)
    thread = threading.Thread(target=install)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        wait_until(
            lambda: any("FLOCK" in line and "->" in line for line in locks()),
            bool,
            Deadline(timedelta(seconds=5)),
            "the installation to wait",
        )
        assert repository.requests == []
    thread.join()
    assert files_in(directory) == ALL


def locks() -> list[str]:
    """Who holds a lock or waits for one (proc(5))."""
    return Path("/proc/locks").read_text(encoding="utf-8").splitlines()


# ---- what is refused


def test_another_file_is_refused_and_nothing_of_it_kept(
    repository: Repository, install: Callable[[], Path], tmp_path: Path
) -> None:
    other = b"other " * 1000
    repository.files[FIRST] = other
    with pytest.raises(DownloadError) as refused:
        install()
    text = str(refused.value)
    assert text.startswith(
        f"{repository.url}/{FIRST} is not the expected file: it has 6000 bytes and the SHA-256 "
    )
    assert hashlib.sha256(other).hexdigest() in text
    assert f"expected 6000 bytes and {RELEASE.jars[0].sha256}. Nothing of it was kept." in text
    assert files_in(installation_directory({"TESTYARD_CACHE": str(tmp_path)})) == {}


def test_a_repository_without_the_file_is_named(repository: Repository, install: Callable[[], Path]) -> None:
    repository.status = 403
    with pytest.raises(DownloadError, match=rf"/{FIRST} was answered with 403, expected the file\. Without a way"):
        install()
    repository.status = 200
    del repository.files[SECOND]
    with pytest.raises(DownloadError, match=rf"/{SECOND} was answered with 404"):
        install()


def test_offline_says_what_else_can_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setenv("TESTYARD_CACHE", str(tmp_path))
    monkeypatch.setenv("MAVEN_REPOSITORY_URL", "http://127.0.0.1:1/maven2/")
    assert main(["lab", "install", "kafka"]) == 2
    said = capsys.readouterr()
    assert said.out.startswith(f"Apache Kafka {locked_release().version}: {len(locked_release().jars)} files, ")
    assert re.fullmatch(
        r"testyard: http://127\.0\.0\.1:1/maven2/org/\S+\.jar cannot be downloaded: .*Connection refused\. "
        r"Without a way to http://127\.0\.0\.1:1/maven2, let MAVEN_REPOSITORY_URL name a mirror of Maven Central, "
        rf"or copy {tmp_path}/kafka/\S+ from a machine that has it\.\n",
        said.err,
    )


@pytest.mark.parametrize("url", ["http://[", "mirror.example.org", "ftp://mirror.example.org"])
def test_what_is_no_url_is_named(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match=re.escape(url)):
        install_kafka([].append, {"MAVEN_REPOSITORY_URL": url, "TESTYARD_CACHE": str(tmp_path)}, RELEASE)


def test_the_password_of_a_mirror_is_not_shown(repository: Repository, tmp_path: Path) -> None:
    said: list[str] = []
    repository.status = 404
    url = repository.url.replace("://", "://reader:plain-password@")
    with pytest.raises(DownloadError) as refused:
        install_kafka(said.append, variables(repository, tmp_path) | {"MAVEN_REPOSITORY_URL": url}, RELEASE)
    assert "plain-password" not in f"{said} {refused.value}"
    assert repository.url in str(refused.value)
    assert secrets_in_use.mask("plain-password") == "***"


def test_a_cache_that_cannot_be_written_is_named(repository: Repository, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(
        DownloadError, match=rf"^{file}/kafka/\S+ cannot be written: Not a directory\. Let TESTYARD"
    ):
        install_kafka([].append, variables(repository, file), RELEASE)


def test_a_full_disk_is_named(repository: Repository, install: Callable[[], Path], monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("testyard.lab.servers.downloads.Path.replace", full)
    with pytest.raises(DownloadError, match=r"first-1\.2\.jar\.part cannot be written: No space left on device\."):
        install()


def test_a_wrong_call_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["lab", "install", "cassandra"])
    assert ended.value.code == 2
    assert "invalid choice: 'cassandra'" in capsys.readouterr().err


# ---- what is installed


def test_the_locked_release_pins_every_file() -> None:
    release = locked_release()
    assert re.fullmatch(r"4\.\d+\.\d+", release.version)
    assert len({jar.name for jar in release.jars}) == len(release.jars) >= 40
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size for jar in release.jars)
    server = [jar.path for jar in release.jars if jar.artifact == "kafka_2.13"]
    assert server == [f"org/apache/kafka/kafka_2.13/{release.version}/kafka_2.13-{release.version}.jar"]
    assert 40_000_000 < release.size < 60_000_000


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOME": "/home/tester"}, "/home/tester/.cache/testyard/kafka/"),
        ({"HOME": "/home/tester", "XDG_CACHE_HOME": "/caches"}, "/caches/testyard/kafka/"),
        ({"XDG_CACHE_HOME": "/caches", "TESTYARD_CACHE": "/own"}, "/own/kafka/"),
    ],
)
def test_the_cache_is_the_users(environment: dict[str, str], expected: str) -> None:
    assert str(installation_directory(environment)) == expected + locked_release().version


def test_what_is_missing_is_told_with_the_command(
    repository: Repository, install: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_install, "locked_release", lambda: RELEASE)
    environment = variables(repository, tmp_path) | {"PATH": str(java_that_says(tmp_path, "17.0.1").parent)}
    reason = "Apache Kafka 9.9 is not installed: python -m testyard lab install kafka."
    assert missing_kafka(environment) == reason
    directory = install()
    assert missing_kafka(environment) == ""
    assert installed_kafka(environment).class_path == f"{directory}/first-1.2.jar:{directory}/second-1.2.jar"
    (directory / "second-1.2.jar").write_bytes(b"cut")
    assert missing_kafka(environment) == reason
    install()
    assert missing_kafka(environment | {"PATH": str(tmp_path)}).startswith(
        "It needs Java 17 or newer: apt install "
    )


def test_the_archive_of_classes_is_for_one_java() -> None:
    archives = {
        Installation(RELEASE, Path("/kafka"), java.Java(Path("java"), 17, build)).class_archive.name
        for build in ("17.0.1", "17.0.2", "17.0.2")
    }
    assert len(archives) == 2


# ---- Java


def java_that_says(directory: Path, version: str) -> Path:
    program = directory / version / "bin" / "java"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n", encoding="utf-8")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(("said", "version"), [("17.0.15", 17), ("25", 25), ("21-ea", 21)])
def test_a_java_is_found(tmp_path: Path, said: str, version: int) -> None:
    program = java_that_says(tmp_path, said)
    assert find_java({"PATH": str(program.parent)}).version == version
    assert find_java({"PATH": "/nowhere", "JAVA_HOME": str(program.parents[1])}).program == program


@pytest.mark.parametrize(("said", "version"), [("11.0.2", "11"), ("1.8.0_402", "8")])
def test_a_java_that_is_too_old_is_named(tmp_path: Path, said: str, version: str) -> None:
    program = java_that_says(tmp_path, said)
    with pytest.raises(
        JavaError,
        match=rf"^It needs Java 17 or newer: apt install openjdk-17-jre-headless, or set JAVA_HOME; {program} "
        rf"is Java {version}\.$",
    ):
        find_java({"JAVA_HOME": str(program.parents[1])})


def test_a_java_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(JavaError, match=r"; there is no java on the PATH\.$"):
        find_java({"PATH": str(tmp_path)})
    with pytest.raises(JavaError, match=rf"; JAVA_HOME is {tmp_path}, which has no bin/java\.$"):
        find_java({"JAVA_HOME": str(tmp_path), "PATH": "/usr/bin"})


@pytest.mark.parametrize("script", ["#!/bin/sh\necho Unable to locate a Java Runtime\nexit 1\n", "no program"])
def test_a_java_that_says_nothing_useful_is_named(tmp_path: Path, script: str) -> None:
    program = java_that_says(tmp_path, "17.0.99")
    program.write_text(script, encoding="utf-8")
    with pytest.raises(JavaError, match="does not say its version"):
        find_java({"JAVA_HOME": str(program.parents[1])})
