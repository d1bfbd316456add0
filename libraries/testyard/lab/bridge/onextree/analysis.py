"""What a project's files say about a piece of work: rules on words, as the public service has them.

Source: contract page "event-bus", 3.9.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from testyard.lab.bridge.onextree.tree import Entry, Tree

MOST_PATTERNS: Final = 10
MOST_RELATIONSHIPS: Final = 20
MINIMAL: Final = "minimal"


@dataclass(frozen=True)
class Rule:
    """What a context is taken for when one of some words is in it.

    Attributes:
        analysis_type: What for.
        confidence: How surely.
        words: Which words; None: any.
        recommendations: What is recommended then.
    """

    analysis_type: str
    confidence: float
    words: re.Pattern[str] | None
    recommendations: tuple[str, ...]

    def matches(self, context: str) -> bool:
        """Whether a context is such a one."""
        return self.words is None or self.words.search(context) is not None


# The contract says no confidence for tests; it is between its neighbours'.
RULES: Final = (
    Rule(
        "security_analysis",
        0.90,
        re.compile(r"(?<![a-z])(?:auth|login|security)", re.IGNORECASE),
        ("Keep secrets out of logs and messages.", "Test what must be refused, too."),
    ),
    Rule(
        "api_analysis",
        0.88,
        re.compile(r"(?<![a-z])(?:apis?|endpoints?|rest(?:ful)?)(?![a-z])", re.IGNORECASE),
        ("Check what comes in at the edge.", "Answer errors in one shape."),
    ),
    Rule(
        "test_analysis",
        0.86,
        re.compile(r"(?<![a-z])(?:test(?:s|ed|ing)?|specs?)(?![a-z])", re.IGNORECASE),
        ("Wait on conditions and never on time.", "See every check fail once."),
    ),
    Rule(
        "data_analysis",
        0.87,
        re.compile(r"(?<![a-z])(?:databases?|models?|schemas?)(?![a-z])", re.IGNORECASE),
        ("Change tables by versioned migrations.", "Let constraints keep what must hold."),
    ),
    Rule("content_validation", 0.85, None, ("Check that the content is what its path promises.",)),
)


def rule_of(context: str) -> Rule:
    """The first rule that a context matches; the last one matches everything."""
    return next(rule for rule in RULES if rule.matches(context))


def analyse(
    tree: Tree | None, context: str, *, include_patterns: bool, include_relationships: bool
) -> dict[str, Any]:
    """What is to be said about a context.

    Args:
        tree: The project; None when none was read: then there is nothing to be said.
        context: What it is about.
        include_patterns: Whether to look for patterns in the project.
        include_relationships: Whether to look for what belongs together.

    Returns:
        The analysis; its confidence as text, as the public service has it.
    """
    if tree is None:
        nothing = _analysis(MINIMAL, 0.0, ())
        return _answer(nothing, [], [], {"tree_loaded": False, "coverage": 0.0})
    rule = rule_of(context)
    files = [each for each in tree.entries if not each.is_directory]
    related = [each for each in files if rule.words is not None and rule.words.search(each.path)]
    metadata = {
        "tree_loaded": True,
        "total_files": tree.total_files,
        "related_files": len(related),
        # Every path of the project was looked at.
        "coverage": 1.0 if files else 0.0,
    }
    return _answer(
        _analysis(rule.analysis_type, rule.confidence, rule.recommendations),
        _patterns(tree) if include_patterns else [],
        _relationships(related or files) if include_relationships else [],
        metadata,
    )


def _analysis(analysis_type: str, confidence: float, recommendations: Sequence[str]) -> dict[str, Any]:
    return {
        "analysis_type": analysis_type,
        "confidence_score": f"{confidence:.2f}",
        "recommendations": list(recommendations),
    }


def _answer(
    intelligence: dict[str, Any],
    patterns: list[dict[str, Any]],
    relationships: list[dict[str, Any]],
    metadata: dict[str, Any],
) -> dict[str, Any]:
    return {
        "intelligence": intelligence,
        "patterns": patterns,
        "relationships": relationships,
        "metadata": metadata,
    }


def _patterns(tree: Tree) -> list[dict[str, Any]]:
    return [
        {"pattern": f"*{extension}", "files": count, "share": round(count / tree.total_files, 4)}
        for extension, count in tree.extensions.most_common(MOST_PATTERNS)
    ]


def _relationships(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return [
        {"source": each.path.rpartition("/")[0] or ".", "target": each.path, "type": "contains"}
        for each in entries[:MOST_RELATIONSHIPS]
    ]
