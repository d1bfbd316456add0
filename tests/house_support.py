"""The rules of the house that a machine can check; each function returns the violations that it finds.

A violation is one line, ``path:line: what is wrong``, with the path relative to the project. Every function takes
the project's directory, so that a test can show on a small bad project that the rule can fail.
"""

from __future__ import annotations

import ast
import functools
import gc
import ipaddress
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from robot.api import TestSuite, Token, get_model, get_resource_model
from robot.libdocpkg import LibraryDocumentation
from robot.libdocpkg.model import LibraryDoc
from robot.parsing import File
from robot.parsing.model.blocks import (
    For,
    If,
    Keyword,
    KeywordSection,
    NestedBlock,
    TestCase,
    TestCaseSection,
    While,
)
from robot.parsing.model.statements import (
    Comment,
    Documentation,
    EmptyLine,
    LibraryImport,
    Metadata,
    Statement,
    Tags,
    TestTags,
    Var,
    Variable,
    VariablesImport,
)

PROJECT = Path(__file__).parents[1]

LIBRARIES = (
    *("WaldurLibrary", "StompLibrary", "SqlLibrary", "KafkaLibrary", "PipelineLibrary"),
    *("PowerLibrary", "WorkflowLibrary", "LedgerLibrary", "LabLibrary"),
)

LONGEST_SUITE = 300
MOST_TESTS = 20
LONGEST_RESOURCE = 400
LONGEST_KEYWORD = 40
LONGEST_MODULE = 500
SHORTEST_COPY = 4

# Where waiting is the behaviour itself, each with what waits there.
MAY_SLEEP = {
    "libraries/testyard/core/deadline.py": "the one place that waits for others",
    "libraries/testyard/lab/clouds/actions.py": "a provider's action ends when its machine has come to rest",
    "libraries/testyard/lab/clouds/libvirt.py": "a domain mirrors its machine, which tells nobody that it changed",
    "libraries/testyard/lab/clouds/machines.py": "a provider answers when its machine has come to rest",
    "libraries/testyard/lab/waldur/app.py": "the latency that the fault 'slow answers' asks for",
}


def _modules(project: Path, *folders: str) -> dict[str, Path]:
    """The Python modules below some folders, by their path relative to the project."""
    paths = (path for folder in folders for path in sorted((project / folder).rglob("*.py")))
    return {path.relative_to(project).as_posix(): path for path in paths}


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


# ---- rule 1: direction


@dataclass(frozen=True)
class Ban:
    """Who must not import what. Names are modules and stand for everything in them; ``*`` is everybody.

    ``{room}`` stands for the importer's own room: the first two parts of its name.
    """

    importers: tuple[str, ...]
    targets: tuple[str, ...]
    reason: str
    exempt: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()

    def forbids(self, importer: str, target: str) -> bool:
        room = ".".join(importer.split(".")[:2])
        allowed = tuple(name.format(room=room) for name in self.allowed)
        return (
            _is_in(importer, self.importers)
            and _is_in(target, self.targets)
            and not _is_in(importer, self.exempt)
            and not _is_in(target, allowed)
        )


MAY_IMPORT_ANYTHING = ("testyard.lab.sabotage", "testyard.__main__")

BANS = (
    Ban(("testyard",), ("robot",), "backends never import Robot Framework"),
    Ban(("*",), ("testyard.__main__",), "nothing imports the command line"),
    Ban(("*",), ("testyard.lab.sabotage",), "nothing imports the sabotage", exempt=MAY_IMPORT_ANYTHING),
    Ban(
        ("testyard",),
        ("testyard",),
        "a backend may import only testyard.core and itself",
        exempt=(*MAY_IMPORT_ANYTHING, "testyard.workflow"),
        allowed=("testyard.core", "{room}"),
    ),
    Ban(
        ("testyard.workflow",),
        ("testyard",),
        "the workflow engine may import only testyard.core, testyard.power and itself",
        allowed=("testyard.core", "testyard.power", "testyard.workflow"),
    ),
    Ban(LIBRARIES, ("testyard.lab",), "only LabLibrary reaches the lab", exempt=("LabLibrary",)),
    Ban(
        ("LabLibrary",),
        ("testyard.lab",),
        "the lab is reached through its supervisor and environment",
        allowed=("testyard.lab.supervisor", "testyard.lab.environment"),
    ),
    *(
        Ban(("*",), (library,), "only suites and resources use a library", exempt=(library,))
        for library in LIBRARIES
    ),
)


def imports_against_the_direction(project: Path) -> list[str]:
    """Imports that point back: suites -> resources -> libraries -> testyard backends -> core."""
    modules = _modules(project, "libraries")
    known = {_module_name(relative) for relative in modules}
    return [
        f"{relative}:{line}: imports {target}: {ban.reason}"
        for relative, path in modules.items()
        for line, target in _imports(path, relative, known)
        for ban in BANS
        if ban.forbids(_module_name(relative), target)
    ]


def _module_name(relative: str) -> str:
    return relative.removeprefix("libraries/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(path: Path, relative: str, known: set[str]) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, wherever in the file, as precisely as it can be told."""
    package = relative.removeprefix("libraries/").split("/")[:-1]
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in known else base


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(package in {"*", module} or module.startswith(f"{package}.") for package in packages)


# ---- rule 5: who sleeps


def sleeps(project: Path, allowed: Mapping[str, str] = MAY_SLEEP) -> list[str]:
    """Sleeping outside the modules that may, by call or by name; and modules that may and no longer do."""
    found = {
        relative: [node.lineno for node in ast.walk(_tree(path)) if _is_sleep(node)]
        for relative, path in _modules(project, "libraries").items()
    }
    violations = [
        f"{relative}:{line}: sleeps; wait on a condition with testyard.core.deadline"
        for relative, lines in found.items()
        for line in lines
        if relative not in allowed
    ]
    idle = [relative for relative in allowed if not found.get(relative)]
    return violations + [f"{relative}:1: may sleep but does not: take it off the list" for relative in idle]


def _is_sleep(node: ast.AST) -> bool:
    clocks = {"time", "asyncio", "anyio", "trio"}
    if isinstance(node, ast.ImportFrom):
        return node.module in clocks and any(alias.name.startswith("sleep") for alias in node.names)
    return (
        isinstance(node, ast.Attribute)
        and node.attr.startswith("sleep")
        and isinstance(node.value, ast.Name)
        and node.value.id in clocks
    )


# ---- rule 14: sizes


def too_long(project: Path) -> list[str]:
    """Suites, resources, keywords and Python modules that are too long to be read."""
    violations = []
    limits = {"suites": LONGEST_SUITE, "resources": LONGEST_RESOURCE}
    for relative, model in _robot_files(project).items():
        violations += _longer(project, relative, limits[relative.split("/")[0]])
        tests = [test for test in _blocks(model) if isinstance(test, TestCase)]
        if len(tests) > MOST_TESTS:
            violations.append(f"{relative}:1: has {len(tests)} tests, at most {MOST_TESTS}")
        for block in _blocks(model):
            length = _last_line(block) - block.lineno + 1
            if isinstance(block, Keyword) and length > LONGEST_KEYWORD:
                violations.append(
                    f"{relative}:{block.lineno}: {block.name} has {length} lines, at most {LONGEST_KEYWORD}"
                )
    for relative in _modules(project, "libraries", "tests", ".ci"):
        violations += _longer(project, relative, LONGEST_MODULE)
    return violations


def _longer(project: Path, relative: str, limit: int) -> list[str]:
    lines = len((project / relative).read_text(encoding="utf-8").splitlines())
    return [f"{relative}:1: has {lines} lines, at most {limit}"] if lines > limit else []


def _robot_files(project: Path) -> dict[str, File]:
    """The models of suites and resources, by their path relative to the project."""
    suites = {path: get_model(path) for path in sorted((project / "suites").rglob("*.robot"))}
    resources = {path: get_resource_model(path) for path in sorted((project / "resources").rglob("*.resource"))}
    return {path.relative_to(project).as_posix(): model for path, model in (suites | resources).items()}


def _blocks(model: File) -> Iterator[TestCase | Keyword]:
    """The tests and keywords of a file."""
    for section in model.sections:
        if isinstance(section, TestCaseSection | KeywordSection):
            yield from (item for item in section.body if isinstance(item, TestCase | Keyword))


def _last_line(block: TestCase | Keyword) -> int:
    used = [item for item in block.body if not isinstance(item, EmptyLine | Comment)]
    return used[-1].end_lineno if used else block.lineno


def undocumented_tests(project: Path) -> list[str]:
    """Tests without documentation."""
    return [
        f"{relative}:{test.lineno}: test {test.name} has no documentation"
        for relative, model in _robot_files(project).items()
        for test in _blocks(model)
        if isinstance(test, TestCase)
        and not any(isinstance(item, Documentation) and item.value.strip() for item in test.body)
    ]


def keyword_names_in_two_files(project: Path, libraries: Sequence[str] = LIBRARIES) -> list[str]:
    """Keywords that two resources, suites or libraries call the same."""
    places: defaultdict[str, set[str]] = defaultdict(set)
    for relative, model in _robot_files(project).items():
        for block in _blocks(model):
            if isinstance(block, Keyword):
                places[_normal(block.name)].add(relative)
    for library in libraries:
        for keyword in documentation_of(library).keywords:
            places[_normal(keyword.name)].add(library)
    return [
        f"{min(files)}:1: keyword {name} is also in {max(files)}"
        for name, files in places.items()
        if len(files) > 1
    ]


def _normal(name: str) -> str:
    return re.sub(r"[\s_]", "", name).lower().removeprefix("builtin.")


def identical_bodies(project: Path) -> list[str]:
    """Bodies of four or more statements, of tests, keywords or blocks in them, that are there twice."""
    seen: dict[tuple[object, ...], str] = {}
    violations = []
    for relative, model in _robot_files(project).items():
        for block in _blocks(model):
            for line, body in _bodies(block):
                if len(body) < SHORTEST_COPY:
                    continue
                first = seen.setdefault(body, f"{relative}:{line}")
                if first != f"{relative}:{line}":
                    violations.append(f"{relative}:{line}: the same {len(body)} statements as {first}")
    return violations


def _bodies(block: TestCase | Keyword | NestedBlock) -> Iterator[tuple[int, tuple[object, ...]]]:
    yield block.lineno, _content(block)
    for item in block.body:
        if isinstance(item, NestedBlock):
            yield from _bodies(item)


def _content(block: TestCase | Keyword | NestedBlock) -> tuple[object, ...]:
    """What a body does, however it is laid out: without settings, comments and blanks."""
    content: list[object] = []
    for item in block.body:
        if isinstance(item, NestedBlock):
            content.append((_words(item.header), _content(item)))
        elif isinstance(item, Statement) and item.type not in Token.SETTING_TOKENS | {Token.COMMENT, Token.EOL}:
            content.append(_words(item))
    return tuple(content)


def _words(statement: Statement) -> tuple[str, ...]:
    return tuple(token.value for token in statement.data_tokens)


# ---- rules 5 and 14: what suites and resources say


FORBIDDEN_KEYWORDS = {_normal(name): name for name in ("Sleep", "Evaluate", "Wait Until Keyword Succeeds")}
CONDITIONS_IN_DISGUISE = {
    _normal(name): name for name in ("Run Keyword If", "Run Keyword Unless", "Repeat Keyword")
}

URL = re.compile(r"\b(?:https?|wss?|ftp|stomp|amqps?|postgres(?:ql)?)://", re.IGNORECASE)
ADDRESS = re.compile(r"(?<![\w.])(?:\d{1,3}(?:\.\d{1,3}){3}|localhost|::1)(?![\w.])")
# A secret's value: a long word of hexadecimal digits, or what is given to a name that says so.
LONG_SECRET = re.compile(r"\b[0-9a-fA-F]{32,}\b")
NAMED_SECRET = re.compile(
    r"^[$&@]?\{?\w*(?:password|passwd|passcode|secret|token|api_?key)\w*(?:: \w+)?\}?\s?=\s*(.*)$", re.I
)


def forbidden_words(project: Path) -> list[str]:
    """Waits on time, code, literal addresses and secrets in suites and resources."""
    return [
        f"{relative}:{token.lineno}: {reason}: {token.value}"
        for relative, model in _robot_files(project).items()
        for token, value in _values(model)
        for reason in _why_not_written(token.value, value)
    ]


def _values(model: File) -> Iterator[tuple[Token, str]]:
    """Everything a file says but documentation and tags; a variable's value also as what it is given to."""
    for statement in statements(model):
        if isinstance(statement, Documentation | Comment | Metadata | Tags | TestTags):
            continue
        variable = statement.name.rstrip("= ") if isinstance(statement, Var | Variable) else ""
        for token in statement.data_tokens:
            given = variable and token.type == Token.ARGUMENT
            yield token, f"{variable}={token.value}" if given else token.value


def statements(block: object) -> Iterator[Statement]:
    """Every statement of a model, however deep."""
    if isinstance(block, Statement):
        yield block
        return
    parts = [getattr(block, "header", None), *getattr(block, "sections", []), *getattr(block, "body", [])]
    parts += [part for name in ("orelse", "next", "end") if (part := getattr(block, name, None))]
    for part in filter(None, parts):
        yield from statements(part)


def _why_not_written(text: str, assignment: str) -> Iterator[str]:
    forbidden = FORBIDDEN_KEYWORDS.get(_normal(text))
    if forbidden:
        yield f"{forbidden} is not for suites and resources"
    if "${{" in text:
        yield "Python code is not for suites and resources"
    if URL.search(text):
        yield "an address belongs in variables/"
    if any(_is_address(match) for match in ADDRESS.findall(text)):
        yield "a host belongs in variables/"
    named = NAMED_SECRET.match(text) or NAMED_SECRET.match(assignment)
    if LONG_SECRET.search(text) or (named and named[1] and not re.search(r"[$&%@]\{", named[1])):
        yield "a secret is never written down"


def _is_address(text: str) -> bool:
    if text == "localhost":
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def logic_in_suites(project: Path) -> list[str]:
    """Loops and conditions in suites, and imports that are not resources."""
    violations = []
    for relative, model in _robot_files(project).items():
        if not relative.startswith("suites/"):
            continue
        for block in _nested_blocks(model):
            word = type(block).__name__.upper()
            violations.append(f"{relative}:{block.lineno}: {word} is for resources and libraries")
        for statement in statements(model):
            if isinstance(statement, LibraryImport | VariablesImport):
                violations.append(f"{relative}:{statement.lineno}: suites import resources only: {statement.name}")
            for token in statement.data_tokens:
                disguised = CONDITIONS_IN_DISGUISE.get(_normal(token.value))
                if disguised and not isinstance(statement, Documentation | Comment):
                    violations.append(f"{relative}:{token.lineno}: {disguised} is for resources and libraries")
    return violations


def _nested_blocks(block: object) -> Iterator[For | While | If]:
    for item in [*getattr(block, "sections", []), *getattr(block, "body", [])]:
        if isinstance(item, For | While | If):
            yield item
        yield from _nested_blocks(item)


# ---- scenario ids


IDENTIFIER = re.compile(r"[A-Z]{2,}-[A-Z]?\d+(?:\.\d+)?[a-z]?")
ROW = re.compile(
    r"^\|\s*(?P<identifier>[A-Z]{2,}-[^\s|]+)\s*\|(?P<case>[^|]+)\|(?P<observed>[^|]+)\|$", re.MULTILINE
)


def scenarios(project: Path) -> dict[str, str]:
    """The documented scenarios: id and case, in the table's order."""
    text = (project / "tests" / "data" / "scenarios.md").read_text(encoding="utf-8")
    return {row["identifier"]: row["case"].strip() for row in ROW.finditer(text)}


def scenario_mismatches(project: Path) -> list[str]:
    """Scenarios without a test, and tags that name or follow no scenario."""
    known = scenarios(project)
    domains = {identifier.partition("-")[0] for identifier in known}
    tested: set[str] = set()
    violations = []
    for test in TestSuite.from_file_system(project / "suites").all_tests:
        where = f"{Path(test.source).relative_to(project).as_posix()}:{test.lineno}"
        for tag in map(str, test.tags):
            identifier = tag.removeprefix("follows:")
            if identifier == tag and not _looks_like_an_identifier(tag, domains):
                continue
            if identifier not in known:
                violations.append(f"{where}: tag {tag} names no scenario")
            elif identifier == tag:
                tested.add(tag)
    missing = [identifier for identifier in known if identifier not in tested]
    return violations + [f"tests/data/scenarios.md:1: {identifier} has no test" for identifier in missing]


def _looks_like_an_identifier(tag: str, domains: set[str]) -> bool:
    # A known domain's name in small letters is a slip; another word with a number, such as http-2, is not.
    return bool(IDENTIFIER.fullmatch(tag)) or tag.upper().partition("-")[0] in domains


# ---- documentation

# What Robot Framework says of a library without documentation.
PLACEHOLDER = "Documentation for library"


@functools.cache
def documentation_of(source: str | Path) -> LibraryDoc:
    """What libdoc tells about a library or resource."""
    with warnings.catch_warnings():
        # Libdoc makes an instance of a library and never closes it; it must not surprise another test.
        warnings.simplefilter("ignore", ResourceWarning)
        documentation = LibraryDocumentation(str(source))
        if documentation.type == "LIBRARY":
            gc.collect()
    return documentation


def undocumented_keywords(*sources: str | Path) -> list[str]:
    """Keywords of libraries and resources without documentation or example, arguments without documentation."""
    violations = []
    for source in sources:
        documentation = documentation_of(source)
        name = documentation.name
        is_library = documentation.type == "LIBRARY"
        if not documentation.doc.strip() or documentation.doc.startswith(PLACEHOLDER):
            violations.append(f"{name}: has no documentation")
        for keyword in documentation.keywords:
            if not keyword.doc.strip():
                violations.append(f"{name}: {keyword.name} has no documentation")
            elif "Example" not in keyword.doc:
                violations.append(f"{name}: {keyword.name} has no example")
        for keyword in [*documentation.inits, *documentation.keywords] if is_library else []:
            undocumented = [argument.name for argument in keyword.args if argument.name and not argument.doc]
            violations += [f"{name}: {keyword.name} does not document {argument}" for argument in undocumented]
    return violations
