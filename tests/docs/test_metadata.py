"""Tests of what machines read about the project: versions, the model card, workflows."""

from __future__ import annotations

import re
from typing import Any

import yaml

import melcap
from melcap.hub import front_matter
from tests.docs.pages import ROOT


def test_versions_agree() -> None:
    citation = load("CITATION.cff")
    assert str(citation["version"]) == melcap.__version__
    assert f"## {melcap.__version__}\n" in text("CHANGELOG.md")


def test_the_changelog_opens_with_what_is_not_released() -> None:
    """`profiling/candidate.py --ship` adds a line there."""
    sections = re.findall(r"^## (.+)$", text("CHANGELOG.md"), re.M)
    assert sections[0] == "Unreleased"


def test_the_model_card_has_what_the_hub_reads() -> None:
    _, front, _ = text("melcap/weights/README.md").split("---\n", 2)
    card = yaml.safe_load(front)
    assert card.items() >= yaml.safe_load(front_matter("mit").strip("-")).items()
    assert {"stoi", "pesq"} <= set(card["metrics"])


def test_pre_commit_runs_the_ruff_of_make_lint() -> None:
    (hook,) = load(".pre-commit-config.yaml")["repos"]
    (pinned,) = re.findall(r"^ruff==(.+)$", text("constraints.txt"), re.M)
    assert hook["rev"] == f"v{pinned}"


def test_workflows_call_make() -> None:
    """They run what a contributor runs, and nothing that only they know."""
    targets = set(re.findall(r"^([\w-]+):", text("Makefile"), re.M))
    called: set[str] = set()
    for name in ("checks", "docs"):
        for job in load(f".github/workflows/{name}.yml")["jobs"].values():
            for step in job["steps"]:
                for line in step.get("run", "").splitlines():
                    if line.startswith("make "):
                        called |= {word for word in line.split()[1:] if word[0] != "."}
    assert {"lint", "types", "kernels", "test", "dist", "docs"} <= called <= targets


def load(name: str) -> Any:
    """Return what a YAML file of the repository holds."""
    return yaml.safe_load(text(name))


def text(name: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")
