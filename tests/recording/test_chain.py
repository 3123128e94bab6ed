"""Whatever is done to a chain of lines is found, and told by line."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.recording.chain import FIRST_PREV, Chain, Verifier, verify


def chain(count: int, kind: str = "note") -> list[bytes]:
    """The lines of a chain."""
    chain = Chain()
    lines = [chain.line(b'{"type":"%b","said":"%d"}' % (kind.encode(), number)) for number in range(1, count + 1)]
    return lines if kind == "note" else [*lines, chain.line(b'{"type":"end"}')]


def problems(lines: list[bytes]) -> list[str]:
    verifier = Verifier()
    for number, line in enumerate(lines, 1):
        verifier.read(f"f:{number}", line)
    return verifier.close().problems


def test_a_line_is_json_with_its_number_and_the_hash_of_the_one_before() -> None:
    first, second = map(json.loads, chain(2))
    assert first == {"seq": 1, "prev": FIRST_PREV, "type": "note", "said": "1"}
    assert second["prev"] == sha256(chain(2)[0].rstrip(b"\n")).hexdigest()
    assert Chain.after(chain(2)[1].rstrip(b"\n")).line(b'{"type":"note","said":"3"}') == chain(3)[2]
    with pytest.raises(ValueError, match="no line of a chain"):
        Chain.after(b'{"said":"1"}')


@pytest.mark.parametrize("kind", ["note", "exchange"])
def test_a_whole_chain_has_no_problem(kind: str) -> None:
    assert problems(chain(5, kind)) == []


def test_a_missing_line() -> None:
    assert problems([*chain(5)[:2], *chain(5)[3:]]) == ["line 3 is missing before f:3"]
    assert problems([*chain(9)[:2], *chain(9)[7:]]) == ["lines 3 to 7 are missing before f:3"]


def test_a_changed_line() -> None:
    lines = chain(5)
    lines[2] = lines[2].replace(b'"3"', b'"8"')
    assert problems(lines) == ["line 3 (f:3) was changed"]
    lines = chain(5)
    lines[0] = lines[0].replace(FIRST_PREV.encode(), b"1" * 64)
    assert "line 1 (f:1) was changed" in problems(lines)


def test_a_line_that_was_put_in() -> None:
    lines = chain(5)
    assert problems([*lines[:3], lines[1], *lines[3:]]) == [
        "line 2 (f:4) was put in: there is another one of that number"
    ]
    assert problems([*lines[:3], b'{"said":"nothing"}\n', *lines[3:]]) == ["f:4 is no whole line of a chain"]


def test_a_line_that_was_moved() -> None:
    lines = chain(6)
    assert problems([lines[0], lines[1], lines[3], lines[4], lines[2], lines[5]]) == [
        "line 3 (f:5) was moved: its place is further up"
    ]


def test_a_line_that_is_no_more() -> None:
    lines = chain(5)
    lines[3] = b"\n"
    assert problems(lines) == ["f:4 is no whole line of a chain", "line 4 is missing before f:5"]


def test_an_end_that_is_missing() -> None:
    assert problems(chain(5, "exchange")[:-1]) == ["the end is missing after line 5 (f:5)"]
    assert problems([*chain(5)[:-1], chain(5)[-1][:-9]]) == ["f:5 is no whole line of a chain"]


def test_nothing_is_no_chain(tmp_path: Path) -> None:
    assert problems([]) == ["there is not a single line"]
    (tmp_path / "empty").touch()
    assert [verdict.problems for verdict in verify(tmp_path.iterdir())] == [["there is not a single line"]]


def test_the_beginning_may_be_elsewhere() -> None:
    assert problems(chain(5)[2:]) == []


@given(st.data())
def test_no_change_of_a_byte_escapes(data: st.DataObject) -> None:
    lines = chain(6, "exchange")
    text = b"".join(lines)
    at = data.draw(st.integers(0, len(text) - 2))
    new = data.draw(st.integers(0, 255).filter(lambda value: value != text[at]))
    changed = text[:at] + bytes([new]) + text[at + 1 :]
    found = problems(changed.splitlines(keepends=True)) if b"\r" not in changed else ["not tried"]
    last = len(text) - len(lines[-1])
    assert found or at >= last, "only the last line's own words are nobody's to vouch for"


def test_a_chain_goes_on_from_file_to_file(tmp_path: Path) -> None:
    lines = chain(9)
    for name, part in (("c", lines[:3]), ("a", lines[3:6]), ("b", lines[6:])):
        (tmp_path / name).write_bytes(b"".join(part))
    (tmp_path / "other").write_bytes(b"".join(chain(2, "exchange")))
    (other, whole) = sorted(verify(tmp_path.iterdir()), key=lambda verdict: verdict.lines)
    assert (whole.lines, whole.first, whole.end.seq, whole.problems) == (9, 1, 9, [])
    assert whole.end.head == sha256(lines[-1].rstrip(b"\n")).hexdigest()
    assert (other.lines, other.problems) == (3, [])

    (tmp_path / "a").unlink()
    (told,) = [problem for verdict in verify(tmp_path.iterdir()) for problem in verdict.problems]
    assert told == f"lines 4 to 6 are missing before {tmp_path / 'b'}:1"
