"""Lines of JSON that show by themselves whether one is missing, was changed, was put in or was moved.

Every line is an object that begins with its number, counted from 1, the SHA-256 of the line before it (without its
newline) in hexadecimal, and what it tells of: `{"seq":2,"prev":"…","type":"…",…}`. A chain may go on from one file to
the next. Whoever knows the hash of its last line knows that nothing before that was changed: a chain that was written
anew as a whole has another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

FIRST_PREV = "0" * 64
"""What the first line has in the place of a hash."""

ENDED_BY = {"exchange": "end"}
"""Lines of which type come to an end, and the type of the line that says so; other chains may go on for ever."""

_BEGINNING = re.compile(rb'\{"seq":([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})","type":"([a-z_]+)"')


@dataclass
class Chain:
    """Where a chain stands: how many lines it has, and the hash of the last."""

    seq: int = 0
    head: str = FIRST_PREV

    def line(self, body: bytes) -> bytes:
        """The next line, with its newline; `body` is a JSON object in one line whose first member is `type`."""
        line = b'{"seq":%d,"prev":"%b",%b' % (self.seq + 1, self.head.encode(), body[1:])
        self.seq, self.head = self.seq + 1, sha256(line).hexdigest()
        return line + b"\n"

    @classmethod
    def after(cls, line: bytes) -> Chain:
        """Where a chain stands whose last line this is, without its newline; ValueError where it is none of a chain."""
        found = _BEGINNING.match(line)
        if found is None:
            raise ValueError("it is no line of a chain")
        return cls(int(found[1]), sha256(line).hexdigest())


@dataclass
class Verdict:
    """What was found of a chain."""

    lines: int = 0
    first: int = 0
    """The number of the first line; 0 where there is none."""
    end: Chain = field(default_factory=Chain)
    """Where the chain stands after the last line."""
    problems: list[str] = field(default_factory=list)
    """What is wrong, each with the number of its line and the place where that stands, or should."""


class _Gap(NamedTuple):
    first: int
    last: int
    before: str
    """The place of the line that follows."""


class Verifier:
    """Reads the lines of one chain in order, and finds what is wrong with them."""

    def __init__(self) -> None:
        self._verdict = Verdict()
        self._place = ""
        self._gaps: list[_Gap] = []
        self._moved: set[int] = set()
        self._types: set[str] = set()
        self._last_type = ""

    @property
    def end(self) -> Chain:
        """Where the chain stands after what was read."""
        return self._verdict.end

    @property
    def ended(self) -> bool:
        """Whether the last line says that it is the last."""
        return self._last_type in ENDED_BY.values()

    def read(self, place: str, line: bytes) -> None:
        """Take the next line, with its newline; `place` is where it stands."""
        verdict = self._verdict
        verdict.lines += 1
        found = _BEGINNING.match(line)
        if found is None or not line.endswith(b"}\n"):
            verdict.problems.append(f"{place} is no whole line of a chain")
            return
        seq, prev = int(found[1]), found[2].decode()
        expected = verdict.end.seq + 1 if verdict.first else seq
        if seq < expected:
            self._out_of_place(seq, place)
            return
        if seq > expected:
            self._gaps.append(_Gap(expected, seq - 1, place))
        elif prev != verdict.end.head and (verdict.first or seq == 1):  # else what was before is elsewhere
            changed = f"line {seq - 1} ({self._place})" if verdict.first else f"line 1 ({place})"
            verdict.problems.append(f"{changed} was changed")
        verdict.first = verdict.first or seq
        verdict.end = Chain(seq, sha256(line[:-1]).hexdigest())
        self._place, self._last_type = place, found[3].decode()
        self._types.add(self._last_type)

    def close(self) -> Verdict:
        """There is no more."""
        problems = self._verdict.problems
        if not self._verdict.lines:
            problems.append("there is not a single line")
        for gap in self._gaps:
            problems += [f"{_lines(first, last)} missing before {gap.before}" for first, last in self._left(gap)]
        if any(ENDED_BY.get(each, self._last_type) != self._last_type for each in self._types - {*ENDED_BY.values()}):
            problems.append(f"the end is missing after line {self._verdict.end.seq} ({self._place})")
        return self._verdict

    def _out_of_place(self, seq: int, place: str) -> None:
        if seq not in self._moved and any(gap.first <= seq <= gap.last for gap in self._gaps):
            self._moved.add(seq)
            self._verdict.problems.append(f"line {seq} ({place}) was moved: its place is further up")
        else:
            self._verdict.problems.append(f"line {seq} ({place}) was put in: there is another one of that number")

    def _left(self, gap: _Gap) -> Iterator[tuple[int, int]]:
        """What of a gap was found nowhere else, as first and last numbers."""
        start = gap.first
        for seq in sorted(seq for seq in self._moved if gap.first <= seq <= gap.last):
            if start < seq:
                yield start, seq - 1
            start = seq + 1
        if start <= gap.last:
            yield start, gap.last


def _lines(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"


def verify(files: Iterable[Path]) -> list[Verdict]:
    """Read files that hold one chain or several; a verdict for each. OSError may be raised.

    A file goes on with the chain that its first line follows; where that is none, with the latest that it may follow.
    """
    verifiers: list[Verifier] = []
    for seq, prev, path in sorted((*_first(path), path) for path in files):
        fitting = [each for each in verifiers if each.end == Chain(seq - 1, prev)]
        possible = fitting or [each for each in verifiers if 0 < each.end.seq < seq and not each.ended]
        if not possible:
            possible = [Verifier()]
            verifiers += possible
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                possible[-1].read(f"{path}:{number}", line)
    return [each.close() for each in verifiers]


def _first(path: Path) -> tuple[int, str]:
    """The number of a file's first line and its hash of the one before; 0 where it is no line of a chain."""
    with path.open("rb") as file:
        found = _BEGINNING.match(file.readline(200))
    return (int(found[1]), found[2].decode()) if found else (0, "")
