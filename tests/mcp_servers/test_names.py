"""The names under which tools are offered fit every provider, are unlike, and never come to mean another tool."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from aibridge.mcp.names import LONGEST, offered_names

SERVERS = st.from_regex(r"[A-Za-z0-9]{1,30}(?:[_-][A-Za-z0-9]{1,30})?", fullmatch=True)
TOOLS = st.lists(st.tuples(SERVERS, st.text(min_size=1, max_size=100)), unique=True, max_size=20)


def test_a_plain_name_is_kept() -> None:
    assert offered_names([("deepwiki", "ask_question")]) == {("deepwiki", "ask_question"): "bmcp_deepwiki_ask_question"}


def test_other_characters_become_underscores() -> None:
    assert offered_names([("s", "files.read/all")]) == {("s", "files.read/all"): "bmcp_s_files_read_all"}


def test_tools_that_would_share_a_name_all_get_another() -> None:
    names = offered_names([("a", "b_c"), ("a_b", "c"), ("a", "other")])
    assert names["a", "other"] == "bmcp_a_other"
    assert names["a", "b_c"].startswith("bmcp_a_b_c_")
    assert names["a_b", "c"].startswith("bmcp_a_b_c_")
    assert names["a", "b_c"] != names["a_b", "c"]


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    names = offered_names([("s", "x" * 80), ("s", "x" * 81)])
    assert {len(name) for name in names.values()} == {LONGEST}
    assert len(set(names.values())) == 2


@given(TOOLS)
def test_names_fit_and_do_not_depend_on_the_order(tools: list[tuple[str, str]]) -> None:
    names = offered_names(tools)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names.values())
    assert len(set(names.values())) == len(tools)
    assert offered_names(reversed(tools)) == names
