"""requirements/: what is installed is pinned, and whoever installs it finds it by an index of their own."""

from __future__ import annotations

import re
import tomllib

import pytest

from .pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS = {
    "run": PROJECT["project"]["dependencies"],
    **PROJECT["project"]["optional-dependencies"],
    "dev": [it for group in ("dev", "conformance") for it in PROJECT["dependency-groups"][group]],
    "fuzz": PROJECT["dependency-groups"]["fuzz"],
}


@pytest.mark.parametrize("name", GROUPS)
def test_everything_is_pinned(name: str) -> None:
    """Where this fails, run `scripts/lock`."""
    lock = (ROOT / "requirements" / f"{name}.lock").read_text()
    pinned = set(re.findall(r"^([\w.-]+)==\S+ .*\\$", lock, re.MULTILINE))
    wanted = {re.split(r"[^\w.-]", requirement)[0] for requirement in GROUPS[name]}
    assert wanted <= pinned
    assert "://" not in lock
    assert "--index" not in lock


def test_what_is_developed_with_is_what_runs() -> None:
    pins = re.compile(r"^[\w.-]+==\S+", re.MULTILINE)
    run, dev, *extras = (
        set(pins.findall((ROOT / "requirements" / f"{name}.lock").read_text()))
        for name in ("run", "dev", *PROJECT["project"]["optional-dependencies"])
    )
    assert extras
    for extra in extras:
        assert run < extra <= dev
