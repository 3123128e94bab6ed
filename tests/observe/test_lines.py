"""Lines to one file: whole, in order, and together where they may wait. A datagram socket shows each write."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from select import PIPE_BUF
from threading import Thread

import pytest

from aibridge.observe.lines import PATIENCE, Lines
from support.waiting import until


class Output:
    """Where lines go."""

    def __init__(self) -> None:
        self._reading, self._writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._reading.setblocking(False)
        self.lines = Lines(self._writing.fileno())
        self.writes: list[bytes] = []

    def seen(self) -> list[bytes]:
        """What was written so far, write by write."""
        try:
            while True:
                self.writes.append(self._reading.recv(1 << 20))
        except BlockingIOError:
            return self.writes

    def close_reading(self) -> None:
        """Take nothing any more."""
        self._reading.close()

    def close(self) -> None:
        """Close both ends."""
        self._reading.close()
        self._writing.close()


@pytest.fixture
def output() -> Iterator[Output]:
    made = Output()
    yield made
    made.close()


async def test_lines_that_may_wait_are_written_together(output: Output) -> None:
    began = asyncio.get_running_loop().time()
    for line in (b"one\n", b"two\n", b"three\n"):
        output.lines.write_soon(line)
    assert output.seen() == []
    await until(output.seen, "the lines are written")
    assert output.writes == [b"one\ntwo\nthree\n"]
    assert asyncio.get_running_loop().time() - began > PATIENCE / 2
    output.lines.write_soon(b"four\n")
    await until(lambda: len(output.seen()) == 2, "the next one is written too")


async def test_a_line_that_may_not_wait_is_written_at_once_after_those_that_wait(output: Output) -> None:
    output.lines.write_soon(b"one\n")
    output.lines.write(b"two\n")
    assert output.seen() == [b"one\ntwo\n"]
    output.lines.write(b"three\n")
    assert output.seen() == [b"one\ntwo\n", b"three\n"]


async def test_no_write_has_more_than_a_pipe_takes_in_one_piece_unless_a_line_does(output: Output) -> None:
    line = b"x" * (PIPE_BUF // 3) + b"\n"
    for _ in range(3):
        output.lines.write_soon(line)
    long = b"y" * (PIPE_BUF + 1) + b"\n"
    output.lines.write(long)
    assert output.seen() == [2 * line, line, long]


def test_without_an_event_loop_no_line_waits(output: Output) -> None:
    output.lines.write_soon(b"one\n")
    assert output.seen() == [b"one\n"]


def test_what_an_event_loop_left_is_written_with_what_comes_next(output: Output) -> None:
    async def one() -> None:
        output.lines.write_soon(b"one\n")

    async def two() -> None:
        await asyncio.sleep(PATIENCE)
        output.lines.write_soon(b"two\n")
        await until(output.seen, "both lines are written")

    asyncio.run(one())
    asyncio.run(two())
    assert output.writes == [b"one\ntwo\n"]


def test_lines_of_several_threads_do_not_mix() -> None:
    """Through a pipe, as a log usually goes."""
    reading, writing = os.pipe()
    lines = Lines(writing)
    written = [[b"%d:%d %s\n" % (thread, number, b"x" * 100) for number in range(300)] for thread in range(4)]

    def write(mine: list[bytes]) -> None:
        for line in mine:
            lines.write(line)

    threads = [Thread(target=write, args=(mine,)) for mine in written]
    for thread in threads:
        thread.start()
    with os.fdopen(reading, "rb") as file:
        found = [file.readline() for _ in range(4 * 300)]
    for thread in threads:
        thread.join()
    os.close(writing)
    assert [sorted(line for line in found if line.startswith(b"%d:" % n)) for n in range(4)] == [*map(sorted, written)]


def test_what_can_not_be_written_stops_nothing(output: Output) -> None:
    output.close_reading()
    output.lines.write(b"one\n")
