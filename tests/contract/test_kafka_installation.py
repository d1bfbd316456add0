"""The command installs an Apache Kafka that runs, from any mirror of Maven Central."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from kafka_server_support import NEEDS_KAFKA
from testyard.lab.servers.kafka import KafkaServer
from testyard.lab.servers.kafka_install import installation_directory, installed_kafka, locked_release

pytestmark = NEEDS_KAFKA


@pytest.fixture
def mirror() -> Iterator[str]:
    """A mirror of Maven Central that has the files which are installed here."""
    directory = installation_directory()
    files = {f"/{jar.path}": directory / jar.name for jar in locked_release().jars}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(file.stat().st_size))
            self.end_headers()
            with file.open("rb") as content:
                shutil.copyfileobj(content, self.wfile)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_what_the_command_installs_runs(mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTYARD_CACHE", str(tmp_path))
    monkeypatch.setenv("MAVEN_REPOSITORY_URL", mirror)
    directory = installation_directory()
    said = install()
    assert said[0].endswith(
        f"{len(locked_release().jars)} files, {locked_release().size / 1e6:.0f} MB, from {mirror}"
    )
    assert said[-1] == f"Apache Kafka {locked_release().version} is installed in {directory}"
    archive = installed_kafka().class_archive
    assert archive.stat().st_size > 10_000_000
    assert not list(directory.glob("*.part")), "nothing half done"
    # A second call finds everything.
    assert install() == said[-1:]
    with KafkaServer() as server:
        assert maps(server.pid, archive), "the archive is in use"


def install() -> list[str]:
    command = [sys.executable, "-m", "testyard", "lab", "install", "kafka"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def maps(process: int, file: Path) -> bool:
    """Whether a process has a file in its memory (proc(5))."""
    return str(file) in Path(f"/proc/{process}/maps").read_text(encoding="utf-8")
