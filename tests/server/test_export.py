"""Exports: every exchange once, in every format, also when the export was killed; and what was done to one is found."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from aibridge.recording import sqlite_history
from aibridge.recording.history import Exchange, Position, history_of
from aibridge.recording.postgres import history as postgres_history
from aibridge.recording.stores import store_for
from aibridge.records import (
    Interception,
    InterceptionEnded,
    ModelThought,
    PromptUsage,
    Record,
    TokenUsage,
    ToolUsage,
)
from aibridge.server.cli import main
from aibridge.server.export import Export, Wanted
from support.postgres import PostgreSQL

MARCH = datetime(2024, 3, 1, tzinfo=UTC)
FORMATS = ["jsonl", "csv", "parquet"]


def uid(number: int, kind: int = 0) -> str:
    return f"018df6e4-0000-7000-800{kind}-{number:012x}"


def exchange(number: int) -> list[Record]:
    """One an hour; two turns, of which the first calls a tool."""
    at, own = MARCH + timedelta(hours=number), uid(number)
    told: dict[str, Any] = {"interception_id": own, "provider_response_id": "msg_1", "created_at": at}
    return [
        Interception(
            id=own,
            initiator_id='ada, "the"\ncountess',
            provider="anthropic",
            provider_name="anthropic",
            model="claude-sonnet-4-5",
            started_at=at,
            route="/v1/messages",
            streaming=True,
            client="Claude Code",
            metadata={"team": "tides"},
        ),
        PromptUsage(id=uid(number, 1), interception_id=own, prompt="When is\nhigh water, “Lyme”?", created_at=at),
        TokenUsage(id=uid(number, 2), input_tokens=number, output_tokens=1, metadata={"service_tier": "x"}, **told),
        TokenUsage(id=uid(number, 3), input_tokens=1, output_tokens=2, provider_usage='{"input_tokens": 1}', **told),
        ToolUsage(
            id=uid(number, 4),
            provider_tool_call_id="call",
            tool="read_tides",
            input="{}",
            invocation_error="no",
            **told,
        ),
        ModelThought(id=uid(number, 5), content="Hm.", **told),
        InterceptionEnded(
            interception_id=own, ended_at=at, status="failed", http_status=400, error_message="Lyme is no place"
        ),
    ]


def keep(url: str, numbers: range) -> None:
    with closing(store_for(url)) as store:
        store.store([record for number in numbers for record in exchange(number)])


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """40 exchanges, in each kind of store in turn."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/records.db"
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql")
        url = server.new_database()
    keep(url, range(40))
    return url


only_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.fixture
def aibridge(url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for module in (sqlite_history, postgres_history):
        monkeypatch.setattr(module, "PAGE", 7)

    def run(*arguments: object) -> Result:
        environ = {"AIBRIDGE_STORAGE_URL": url}
        return CliRunner().invoke(main, ["export", *map(str, arguments)], env=environ, catch_exceptions=False)

    return run


def read(path: Path) -> list[dict[str, Any]]:
    """The exchanges of a file, as far as all formats can tell them."""
    if path.suffix == ".jsonl":
        *found, end = [json.loads(line) for line in path.read_text().splitlines()]
        assert end["type"] == "end"
        assert end["exchanges"] == len(found)
        return found
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [_typed(row) for row in csv.DictReader(file)]
    return [_typed(row) for row in pyarrow.parquet.read_table(path).to_pylist()]


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("input_tokens", "output_tokens", "turns"):
        row[name] = int(row[name])
    for name in ("metadata", "user_prompts", "tool_usages", "model_thoughts", "token_usages"):
        if isinstance(row[name], str):
            row[name] = json.loads(row[name])
    return row


@pytest.mark.parametrize("name", FORMATS)
def test_an_exchange_is_whole(name: str, aibridge: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / f"out.{name}"
    assert aibridge("--format", name, "--output", path).stderr == f"40 exchanges are in {path}.\n"
    found = read(path)
    assert [row["id"] for row in found] == [uid(number) for number in range(40)]
    row = found[3]
    assert row["initiator_id"] == 'ada, "the"\ncountess'
    assert (row["turns"], row["input_tokens"], row["output_tokens"]) == (2, 4, 3)
    assert row["metadata"] == {"team": "tides"}
    assert row["status"] == "failed"
    assert str(row["started_at"]).replace(" ", "T").replace("Z", "+00:00") == "2024-03-01T03:00:00+00:00"
    assert [prompt["prompt"] for prompt in row["user_prompts"]] == ["When is\nhigh water, “Lyme”?"]
    assert [(tool["tool"], tool["invocation_error"]) for tool in row["tool_usages"]] == [("read_tides", "no")]
    assert [usage["input_tokens"] for usage in row["token_usages"]] == [3, 1]
    assert path.stat().st_mode & 0o077 == 0, "it is its owner's alone"
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith("out")) == [path.name]


@only_sqlite
@pytest.mark.parametrize("name", FORMATS)
def test_without_contents(name: str, aibridge: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / f"out.{name}"
    aibridge("--format", name, "--no-contents", "--output", path)
    row = read(path)[0]
    assert [prompt["prompt"] for prompt in row["user_prompts"]] == [""]
    assert [(tool["input"], tool["invocation_error"]) for tool in row["tool_usages"]] == [("", "")]
    assert (row["input_tokens"], row["error_message"]) == (1, "")
    assert "Lyme" not in str(row)


def test_a_span_of_time(aibridge: Callable[..., Result]) -> None:
    lines = aibridge("--since", "2024-03-01T10:00", "--until", "2024-03-01T20:00").stdout.splitlines()
    found = [json.loads(line).get("id") for line in lines]
    assert found == [*map(uid, range(10, 20)), None]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("pages", [1, 3, 5])
def test_an_interrupted_export_goes_on(
    name: Any, pages: int, aibridge: Callable[..., Result], url: str, tmp_path: Path
) -> None:
    path = tmp_path / f"out.{name}"

    class Interrupted:
        """A history that breaks off in the middle of a page that is not saved."""

        def exchanges(self, since: Position, until: datetime) -> Iterator[list[Exchange]]:
            with history_of(url) as whole:
                for number, page in enumerate(whole.exchanges(since, until)):
                    if number == pages:
                        raise KeyboardInterrupt
                    yield page

    with pytest.raises(KeyboardInterrupt):
        Export(path, Wanted(format=name, contents=True, since=None, until=datetime.now(UTC))).run(Interrupted())
    assert not path.exists()
    if name != "parquet":
        with (tmp_path / f"out.{name}.partial").open("ab") as torn:
            torn.write(b'{"torn')

    refused = aibridge("--format", name, "--no-contents", "--output", path)
    assert refused.exit_code == 2
    assert "say the same to go on with it" in refused.stderr

    told = aibridge("--format", name, "--output", path)
    assert told.stderr == (
        f"Going on after {7 * pages} exchanges that were written before.\n40 exchanges are in {path}.\n"
    )
    assert [row["id"] for row in read(path)] == [uid(number) for number in range(40)]
    if name == "jsonl":
        assert aibridge("verify", path).exit_code == 0
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith("out")) == [path.name]
    again = aibridge("--format", name, "--output", path)
    assert again.exit_code == 2
    assert "is there already" in again.stderr


@only_sqlite
def test_a_killed_export_goes_on(url: str, tmp_path: Path) -> None:
    for start in range(40, 8000, 500):
        keep(url, range(start, start + 500))
    path = tmp_path / "out.jsonl"
    program = [str(Path(sys.executable).parent / "aibridge"), "export", "--output", str(path)]
    environ = os.environ | {"AIBRIDGE_STORAGE_URL": url}
    kills = 0
    for _ in range(20):
        running = subprocess.Popen(program, env=environ, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        progress = path.with_name("out.jsonl.progress")
        before = progress.read_bytes() if progress.exists() else b""
        while running.poll() is None and time.monotonic() < deadline and kills < 3:
            if progress.exists() and progress.read_bytes() != before:
                running.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.001)
        if running.wait(30) == 0:
            break
    assert kills > 0
    assert len({row["id"] for row in read(path)}) == len(read(path)) == 8040
    assert CliRunner().invoke(main, ["export", "verify", str(path)]).exit_code == 0


@only_sqlite
def test_memory_is_bounded(url: str) -> None:
    """Twice as many exchanges take no more memory."""
    program = (
        "import sys; from pathlib import Path; from aibridge.server.cli import main\n"
        "try: main(['export'])\n"
        "finally: print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0], file=sys.stderr)"
    )
    environ = os.environ | {"AIBRIDGE_STORAGE_URL": url}
    taken = []
    for start in (40, 4040):
        keep(url, range(start, start + 4000))
        ran = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
        taken.append(int(ran.stderr.split()[-1]))
    assert taken[1] < taken[0] * 1.1, f"{taken} kB"


@only_sqlite
def test_parquet_goes_to_a_file_and_needs_its_package(
    aibridge: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "not to a stream: name one with --output" in aibridge("--format", "parquet").stderr
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused = aibridge("--format", "parquet", "--output", tmp_path / "out.parquet")
    assert refused.exit_code == 2
    assert refused.stderr == (
        "aibridge: Parquet needs the package pyarrow, which is not installed: pip install 'aibridge[parquet]'\n"
    )


@only_sqlite
class TestVerify:
    @pytest.fixture
    def exported(self, aibridge: Callable[..., Result], tmp_path: Path) -> Path:
        path = tmp_path / "out.jsonl"
        aibridge("--output", path)
        return path

    def test_finds_nothing_in_what_nobody_touched(self, aibridge: Callable[..., Result], exported: Path) -> None:
        told = aibridge("verify", exported)
        assert told.exit_code == 0
        head = told.output.split()[-1]
        assert told.output == f"ok: lines 1 to 41; the last one's hash is {head}\n"
        assert aibridge("verify", exported, "--head", head).exit_code == 0
        assert aibridge("verify", exported, "--head", "0" * 64).exit_code == 1

    def test_says_of_another_file_that_it_is_none(self, aibridge: Callable[..., Result], tmp_path: Path) -> None:
        path = tmp_path / "out.csv"
        aibridge("--format", "csv", "--output", path)
        path.write_bytes(path.read_bytes() * 9)
        told = aibridge("verify", path)
        assert told.exit_code == 1
        first, *_, more, last = told.output.splitlines()
        assert first == f"{path}:1 is no whole line of a chain"
        assert re.fullmatch(r"and \d+ more", more)
        assert last.startswith("FAIL: ")

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda lines: lines[:4] + lines[5:], "line 5 is missing before {}:5"),
            (lambda lines: [*lines[:4], lines[4].replace('"ada', '"eve'), *lines[5:]], "line 5 ({}:5) was changed"),
            (lambda lines: [*lines[:5], lines[2], *lines[5:]], "line 3 ({}:6) was put in: there is another one"),
            (
                lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]],
                "line 5 ({}:6) was moved: its place is further up",
            ),
            (lambda lines: lines[:-1], "the end is missing after line 40 ({}:40)"),
        ],
        ids=["missing", "changed", "put in", "moved", "end"],
    )
    def test_says_what_was_done(
        self, change: Callable[[list[str]], list[str]], told: str, aibridge: Callable[..., Result], exported: Path
    ) -> None:
        exported.write_text("".join(change(exported.read_text().splitlines(keepends=True))))
        found = aibridge("verify", exported)
        assert found.exit_code == 1
        assert found.output.startswith(told.format(exported))
        (chain,) = json.loads(aibridge("verify", exported, "--json").output)["chains"]
        assert chain["problems"][0].startswith(told.format(exported))
