"""OnexTree: what it reads, what it finds, and what it says about a piece of work."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bridge_support import called_here, service_process
from testyard.lab.bridge.onextree import app
from testyard.lab.bridge.onextree.analysis import RULES, analyse, rule_of
from testyard.lab.bridge.onextree.app import create_app
from testyard.lab.bridge.onextree.tree import Entry, QueryType, Tree, TreeError, read_tree
from testyard.lab.bridge.settings import OnextreeSettings, Settings

pytestmark = pytest.mark.anyio
MANY = 1_000_000


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project."""
    root = tmp_path / "project"
    files = {
        "README.md": "# Readme",
        "src/login.py": "def login(): ...",
        "src/api/endpoints.py": "",
        "src/api/Models.PY": "class Model: ...",
        "tests/test_login.py": "",
        ".git/HEAD": "ref",
        ".gitignore": "",
        "data/schema.sql": "CREATE TABLE a ();",
        "src/archive.tar.gz": "x" * 100,
    }
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")
    (root / "link").symlink_to("src", target_is_directory=True)
    return root


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A running service with no project."""
    async with called_here(create_app(Settings())) as client:
        yield client


async def good(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    """The body of the answer to a request that has to succeed."""
    answer = await client.request(method, path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def generated(client: httpx.AsyncClient, project: Path) -> dict[str, Any]:
    """Let the service read a project."""
    made: dict[str, Any] = await good(client, "POST", "/generate", {"project_root": str(project)})
    return made


# ---- reading a project


def test_a_project_is_read_without_what_tools_keep_and_without_following_links(project: Path) -> None:
    tree = read_tree(project, MANY)

    assert [it.path for it in tree.entries] == [
        ".gitignore",
        "README.md",
        "data",
        "data/schema.sql",
        "link",
        "src",
        "src/api",
        "src/api/Models.PY",
        "src/api/endpoints.py",
        "src/archive.tar.gz",
        "src/login.py",
        "tests",
        "tests/test_login.py",
    ]
    assert (tree.total_files, tree.total_directories) == (9, 4)
    assert {it.name: it.extension for it in tree.entries if not it.is_directory} == {
        ".gitignore": "",
        "README.md": ".md",
        "schema.sql": ".sql",
        "link": "",
        "Models.PY": ".py",
        "endpoints.py": ".py",
        "archive.tar.gz": ".gz",
        "login.py": ".py",
        "test_login.py": ".py",
    }


def test_a_project_that_is_too_large_or_no_directory_is_not_read(project: Path) -> None:
    with pytest.raises(TreeError, match="more than 12 files"):
        read_tree(project, 12)
    with pytest.raises(TreeError, match="not a directory"):
        read_tree(project / "README.md", MANY)
    with pytest.raises(TreeError, match="not a directory"):
        read_tree(project / "nothing", MANY)


@pytest.mark.parametrize(
    ("query", "query_type", "found"),
    [
        (".py", QueryType.AUTO, ["Models.PY", "endpoints.py", "login.py", "test_login.py"]),
        ("PY", QueryType.EXTENSION, ["Models.PY", "endpoints.py", "login.py", "test_login.py"]),
        ("login", QueryType.AUTO, ["login.py", "test_login.py"]),
        ("LOGIN.py", QueryType.NAME, ["login.py", "test_login.py"]),
        ("src/api", QueryType.AUTO, ["api", "Models.PY", "endpoints.py"]),
        ("/api/", QueryType.AUTO, ["Models.PY", "endpoints.py"]),
        ("tests", QueryType.PATH, ["tests", "test_login.py"]),
        (".nothing", QueryType.AUTO, []),
        ("py", QueryType.PATH, ["Models.PY", "endpoints.py", "login.py", "test_login.py"]),
    ],
)
def test_files_are_found_by_extension_name_and_path(
    project: Path, query: str, query_type: QueryType, found: list[str]
) -> None:
    assert [it.name for it in read_tree(project, MANY).find(query, query_type)] == found


def large_tree(files: int) -> Tree:
    """A project of so many files in directories of a hundred each."""
    entries = [
        Entry(f"dir{number // 100}/file{number}.py", f"file{number}.py", False, 10, ".py")
        for number in range(files)
    ]
    return Tree(Path("/project"), entries, 0.0)


@pytest.mark.parametrize(("query", "matches"), [(".py", 10_000), ("file99", 111), ("dir50/", 100)])
def test_ten_thousand_files_are_looked_through_in_five_milliseconds(query: str, matches: int) -> None:
    tree = large_tree(10_000)
    durations = []
    for _ in range(200):
        began = time.perf_counter()
        found = tree.find(query, QueryType.AUTO)
        durations.append(time.perf_counter() - began)

    assert len(found) == matches
    assert sorted(durations)[100] < 0.005


# ---- the interface


async def test_the_service_tells_what_it_is_and_what_it_knows(client: httpx.AsyncClient, project: Path) -> None:
    before = await good(client, "GET", "/health")
    await generated(client, project)
    after = await good(client, "GET", "/health")

    assert (await good(client, "GET", "/"))["service"] == "onextree"
    assert [(it["status"], it["tree_loaded"], it["total_files"]) for it in (before, after)] == [
        ("healthy", False, 0),
        ("healthy", True, 9),
    ]
    assert (await good(client, "GET", "/configuration"))["onextree"]["largest_tree"] == 100_000


async def test_a_project_is_generated_and_described(client: httpx.AsyncClient, project: Path) -> None:
    made = await generated(client, project)
    stats = await good(client, "GET", "/stats")

    assert (made["success"], made["total_files"], made["total_directories"]) == (True, 9, 4)
    assert made["total_size_mb"] == sum(it.size for it in read_tree(project, MANY).entries) / 1e6
    assert made["generation_time_ms"] > 0
    assert stats["project_root"] == str(project)
    assert stats["file_types"] == {".py": 4, ".md": 1, ".sql": 1, ".gz": 1}


@pytest.mark.parametrize("path", ["/nothing/there", "/dev/null", "nul\x00"])
async def test_a_path_that_is_no_project_is_refused_and_the_last_one_kept(
    client: httpx.AsyncClient, project: Path, path: str
) -> None:
    await generated(client, project)

    answer = await client.post("/generate", json={"project_root": path})

    assert answer.status_code == 400
    assert (await good(client, "GET", "/health"))["total_files"] == 9


async def test_a_directory_that_may_not_be_read_is_refused(
    client: httpx.AsyncClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    answer = await client.post("/generate", json={"project_root": str(project)})

    assert (answer.status_code, answer.json()["detail"]) == (400, f"{project} cannot be read: Permission denied.")


async def test_a_project_has_a_largest_size(project: Path) -> None:
    async with called_here(create_app(Settings(onextree=OnextreeSettings(largest_tree=3)))) as client:
        answer = await client.post("/generate", json={"project_root": str(project)})

    assert answer.status_code == 400
    assert "more than 3" in answer.json()["detail"]


async def test_one_project_is_read_at_a_time(
    client: httpx.AsyncClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = 0
    most = 0
    lock = threading.Lock()

    def watched(root: Path, largest: int) -> Tree:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        tree = read_tree(root, largest)
        with lock:
            reading -= 1
        return tree

    monkeypatch.setattr(app, "read_tree", watched)
    made = await asyncio.gather(*(generated(client, project) for _ in range(10)))

    assert most == 1
    assert {it["total_files"] for it in made} == {9}


async def test_a_query_is_answered_with_files_and_their_number(client: httpx.AsyncClient, project: Path) -> None:
    await generated(client, project)

    answer = await good(client, "POST", "/query", {"query": "login", "limit": 1})

    assert answer == {
        "results": [{"path": "src/login.py", "name": "login.py", "type": "file", "size": 16, "extension": ".py"}],
        "count": 1,
        "total_matches": 2,
    }


@pytest.mark.parametrize("call", [("POST", "/query", {"query": "x"}), ("GET", "/stats", None)])
async def test_without_a_project_there_is_nothing_to_find(client: httpx.AsyncClient, call: Any) -> None:
    method, path, body = call
    assert (await client.request(method, path, json=body)).status_code == 400


@pytest.mark.parametrize(
    "body", [{}, {"query": ""}, {"query": "x", "query_type": "size"}, {"query": "x", "limit": 0}]
)
async def test_a_query_that_is_none_is_refused(client: httpx.AsyncClient, body: Any) -> None:
    assert (await client.post("/query", json=body)).status_code == 422


# ---- intelligence


@pytest.mark.parametrize(
    ("context", "analysis_type"),
    [
        ("src/auth/session.py", "security_analysis"),
        ("Login page", "security_analysis"),
        ("authentication of the api", "security_analysis"),
        ("api/v1/users", "api_analysis"),
        ("a REST endpoint", "api_analysis"),
        ("tests/test_x.py", "test_analysis"),
        ("the spec of it", "test_analysis"),
        ("a database model", "data_analysis"),
        ("schema.sql", "data_analysis"),
        ("README.md", "content_validation"),
        ("the latest restart, rapid and contested", "content_validation"),
        ("", "content_validation"),
    ],
)
def test_a_context_is_taken_for_what_its_words_say(context: str, analysis_type: str) -> None:
    assert rule_of(context).analysis_type == analysis_type


def test_each_analysis_has_its_documented_confidence() -> None:
    documented = {
        "security_analysis": 0.90,
        "api_analysis": 0.88,
        "data_analysis": 0.87,
        "content_validation": 0.85,
    }
    confidences = {rule.analysis_type: rule.confidence for rule in RULES}

    assert confidences | documented == confidences


async def test_intelligence_tells_patterns_and_relationships(client: httpx.AsyncClient, project: Path) -> None:
    await generated(client, project)

    told = await good(client, "POST", "/intelligence", {"context": "src/login.py"})

    assert told["intelligence"]["analysis_type"] == "security_analysis"
    assert told["intelligence"]["confidence_score"] == "0.90"
    assert told["intelligence"]["recommendations"]
    assert told["patterns"][0] == {"pattern": "*.py", "files": 4, "share": 0.4444}
    assert told["relationships"] == [
        {"source": "src", "target": "src/login.py", "type": "contains"},
        {"source": "tests", "target": "tests/test_login.py", "type": "contains"},
    ]
    assert told["metadata"]["related_files"] == 2
    assert told["metadata"]["coverage"] == 1.0


async def test_intelligence_leaves_out_what_is_not_wanted(client: httpx.AsyncClient, project: Path) -> None:
    await generated(client, project)
    body = {"context": "x", "include_patterns": False, "include_relationships": False}

    told = await good(client, "POST", "/intelligence", body)

    assert (told["patterns"], told["relationships"]) == ([], [])


async def test_without_a_project_intelligence_is_minimal_and_still_an_answer(client: httpx.AsyncClient) -> None:
    told = await good(client, "POST", "/intelligence", {"context": "src/login.py"})

    assert told["intelligence"] == {"analysis_type": "minimal", "confidence_score": "0.00", "recommendations": []}
    assert (told["patterns"], told["relationships"]) == ([], [])
    assert told["metadata"] == {"tree_loaded": False, "coverage": 0.0}


def test_a_project_without_files_has_no_patterns() -> None:
    told = analyse(Tree(Path("/"), [], 0.0), "x", include_patterns=True, include_relationships=True)

    assert (told["patterns"], told["relationships"], told["metadata"]["coverage"]) == ([], [], 0.0)


def test_the_service_is_a_process_without_a_database(project: Path, tmp_path: Path) -> None:
    body = {"project_root": str(project)}
    with service_process("testyard.lab.bridge.onextree", Settings(), None, tmp_path) as service:
        assert httpx.post(f"{service.url}/generate", json=body, trust_env=False).json()["total_files"] == 9
    assert service.process.returncode == 0
