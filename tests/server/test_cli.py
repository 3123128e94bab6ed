"""The command line, as an operator meets it: every command is run as a program."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from aibridge.recording.sqlite import SQLiteStore
from aibridge.records import Interception, InterceptionEnded, PromptUsage, TokenUsage, ToolUsage
from aibridge.server.cli import main
from aibridge.server.commands.options import moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
ID = "01980c5e-0000-4000-8000-000000000001"
READING = ["sessions", "show", "usage"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a database in which one exchange is recorded."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AIBRIDGE_")]:
        monkeypatch.delenv(name)
    store = SQLiteStore(tmp_path / "aibridge.db")
    store.store(
        [
            Interception(
                id=ID,
                initiator_id="ada",
                provider="anthropic",
                provider_name="anthropic",
                model="claude-opus-4-5",
                started_at=NOON,
                route="/v1/messages",
                streaming=True,
                client="Claude Code",
                client_session_id="session-of-ada",
                credential_hint="sk-a...wxyz",
            ),
            PromptUsage(
                id=ID[:-1] + "2", interception_id=ID, prompt="Say \x1b[31mred\nand [bold]bold", created_at=NOON
            ),
            ToolUsage(
                id=ID[:-1] + "3",
                interception_id=ID,
                provider_response_id="msg_1",
                provider_tool_call_id="toolu_1",
                tool="ask_question",
                input='{"question":"why"}',
                injected=True,
                server_url="https://mcp.example/mcp",
                invocation_error="timed out",
                created_at=NOON,
            ),
            TokenUsage(
                id=ID[:-1] + "4",
                interception_id=ID,
                provider_response_id="msg_1",
                input_tokens=1234,
                output_tokens=5,
                cache_read_input_tokens=1234,
                created_at=NOON,
            ),
            InterceptionEnded(interception_id=ID, ended_at=NOON, status="completed", http_status=200),
        ]
    )
    store.close()
    return tmp_path


@pytest.fixture
def aibridge(folder: Path) -> Callable[..., Result]:
    """Run a command in that directory."""

    def run(*arguments: str, **environ: str) -> Result:
        return CliRunner().invoke(main, arguments, env=environ, catch_exceptions=False)

    return run


class TestHelp:
    def test_names_every_command_and_what_it_is_for(self, aibridge: Callable[..., Result]) -> None:
        told = aibridge("--help").output

        for name, command in main.commands.items():
            assert re.search(rf"^  {name} +\S", told, re.MULTILINE), f"{name} is not listed"
            assert command.help, f"{name} does not say what it is for"

    def test_of_every_command_has_an_example(self, aibridge: Callable[..., Result]) -> None:
        for name in main.commands:
            told = aibridge(name, "--help").output
            assert re.search(rf"^Examples:|^  Examples:\n +.*aibridge {name}", told, re.MULTILINE), told

    @pytest.mark.parametrize("name", READING)
    def test_has_examples_that_run(self, aibridge: Callable[..., Result], folder: Path, name: str) -> None:
        for example in _examples(main.commands[name]):
            here = example.replace("sqlite:////var/lib/aibridge/records.db", f"sqlite:///{folder}/aibridge.db")
            result = aibridge(*shlex.split(here)[1:])
            assert result.exit_code == 0, f"{example}: {result.output}"

    def test_has_examples_of_starting_whose_options_exist(self) -> None:
        for name in main.commands.keys() - set(READING):
            for example in _examples(main.commands[name]):
                words = shlex.split(example)
                arguments = words[words.index("aibridge") + 2 :]
                main.commands[name].make_context(name, arguments)

    def test_is_there_at_once(self) -> None:
        """Only click and what it needs is imported, none of what serving or reporting needs."""
        program = (
            "import sys, aibridge.server.cli; "
            "print(*{name.partition('.')[0] for name in sys.modules} & "
            "{'aiohttp', 'msgspec', 'rich', 'sqlite3', 'uvicorn', 'uvloop', 'prometheus_client', 'asyncio'})"
        )
        imported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

        assert imported.stdout.split() == []

    def test_version(self, aibridge: Callable[..., Result]) -> None:
        assert re.fullmatch(r"aibridge \d+\.\d+\.\d+\n", aibridge("--version").output)


class TestPrune:
    def test_says_what_would_be_removed_and_removes_it(self, aibridge: Callable[..., Result]) -> None:
        told = aibridge("db", "prune", "--contents-before", "2027-01-01", "--dry-run", "--json")
        heading, *lines = aibridge("db", "prune", "--contents-before", "2027-01-01").output.splitlines()

        assert json.loads(told.output)["dry_run"]
        assert heading.split() == ["table", "removed", "rows", "bytes"]
        assert [line.split()[:3] for line in lines[:-1]] == [
            ["user_prompts", "rows", "1"],
            ["tool_usages", "contents", "1"],
        ]
        call, usage = json.loads(aibridge("show", ID, "--json").output)["interceptions"][0]["facts"]
        assert call["details"]["input"] == ""
        assert usage["details"]["input_tokens"] == 1234
        assert "\n                            failed\n" in aibridge("show", ID).output, "that it failed is known still"

    def test_goes_by_the_settings(self, aibridge: Callable[..., Result]) -> None:
        told = aibridge("db", "prune", AIBRIDGE_RETENTION_FIGURES="1d").output

        tables = ["token_usages", "tool_usages", "user_prompts", "interceptions"]
        assert [line.split()[:3] for line in told.splitlines()[1:-1]] == [[table, "rows", "1"] for table in tables]
        assert aibridge("db", "prune", AIBRIDGE_RETENTION_FIGURES="1d").output == "Nothing has had its time.\n"

    def test_needs_to_know_what(self, aibridge: Callable[..., Result]) -> None:
        refused = aibridge("db", "prune")

        assert refused.exit_code == 2
        assert "everything is kept for ever: say --contents-before" in refused.stderr


class TestSessions:
    def test_are_lines_without_noise_where_there_is_no_terminal(self, aibridge: Callable[..., Result]) -> None:
        heading, line = aibridge("sessions").output.splitlines()

        assert heading.split()[:5] == ["session", "client", "actor", "started", "last"]
        assert line.split()[:2] == ["session-of-ada", "Claude"]
        assert "2026-01-15 12:00:00" in line
        assert "1,234" in line

    def test_show_what_was_recorded_without_obeying_it(self, aibridge: Callable[..., Result]) -> None:
        told = aibridge("sessions").output

        assert "\x1b" not in told, "a prompt can not command the terminal"
        assert r"Say \x1b[31mred and [bold]bold" in told

    def test_fit_any_terminal(self, folder: Path) -> None:
        ours, theirs = os.openpty()
        program = [sys.executable, "-c", "from aibridge.server.cli import main; main()", "sessions"]
        subprocess.run(program, cwd=folder, stdout=theirs, env=os.environ | {"COLUMNS": "40"}, check=True)
        os.close(theirs)

        told = click.unstyle(os.read(ours, 65536).decode())

        os.close(ours)
        assert told.splitlines()[:5] == [
            "session-of-ada  ada with Claude Code",
            "  2026-01-15 12:00:00 to 2026-01-15 12:00:00",
            "  1 request, 1 turn, 1 prompt, 1 tool call",
            "  tokens: in 1,234, out 5, cache read 1,234, cache write 0",
            r"  Say \x1b[31mred and [bold]bold",
        ]

    def test_as_json_are_for_scripts(self, aibridge: Callable[..., Result]) -> None:
        (session,) = json.loads(aibridge("sessions", "--json").output)["sessions"]

        assert session["session"] == "session-of-ada"
        assert session["input_tokens"] == 1234

    def test_that_there_are_none_is_said(self, aibridge: Callable[..., Result]) -> None:
        assert aibridge("sessions", "--user", "nobody").output == "No sessions are recorded, or none that fits.\n"


class TestShow:
    def test_tells_what_happened(self, aibridge: Callable[..., Result]) -> None:
        told = aibridge("show", "01980c5e").output

        assert told == (
            f"interception {ID}\n"
            "  actor      ada\n"
            "  client     Claude Code\n"
            "  session    session-of-ada\n"
            "  provider   anthropic (anthropic) /v1/messages, streaming\n"
            "  model      claude-opus-4-5\n"
            "  credential centralized sk-a...wxyz\n"
            "  12:00:00.000     started\n"
            "  12:00:00.000      prompt  Say \\x1b[31mred\n"
            "                            and [bold]bold\n"
            "  12:00:00.000   tool call  ask_question (run by the gateway at https://mcp.example/mcp) "
            '{"question":"why"}\n'
            "                            failed: timed out\n"
            "  12:00:00.000 token usage  input 1234, output 5, cache read 1234, cache write 0\n"
            "  12:00:00.000   completed  status 200\n"
        )

    def test_as_json_has_every_column(self, aibridge: Callable[..., Result]) -> None:
        (shown,) = json.loads(aibridge("show", "session-of-ada", "--json").output)["interceptions"]

        assert shown["interception"]["credential_hint"] == "sk-a...wxyz"
        assert [fact["kind"] for fact in shown["facts"]] == ["prompt", "tool_call", "token_usage"]

    def test_of_nothing_is_told_on_standard_error(self, aibridge: Callable[..., Result]) -> None:
        result = aibridge("show", "zzz")

        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("aibridge: no interception or session has an id 'zzz'")


class TestUsage:
    def test_ends_with_the_total(self, aibridge: Callable[..., Result]) -> None:
        lines = aibridge("usage", "--by", "model").output.splitlines()

        assert " ".join(lines[0].split()) == "model requests failed cancelled in out cache read cache write cache hits"
        assert lines[1].split() == ["claude-opus-4-5", "1", "0", "0", "1,234", "5", "1,234", "0", "50%"]
        assert lines[-1].split() == ["total", "1", "0", "0", "1,234", "5", "1,234", "0", "50%"]

    def test_as_json_is_for_scripts(self, aibridge: Callable[..., Result]) -> None:
        usage = json.loads(aibridge("usage", "--by", "day", "--json").output)

        assert usage["by"] == "day"
        assert [row["key"] for row in usage["rows"]] == ["2026-01-15"]
        assert usage["total"]["cache_hit_share"] == 0.5

    def test_takes_the_span_of_time(self, aibridge: Callable[..., Result]) -> None:
        usage = json.loads(aibridge("usage", "--until", "2026-01-15T12:00", "--json").output)

        assert usage["rows"] == []


class TestWhereTheRecordsAre:
    def test_can_be_said_by_the_settings(self, aibridge: Callable[..., Result], folder: Path) -> None:
        (folder / "aibridge.db").rename(folder / "moved.db")
        (folder / "settings.toml").write_text('[storage]\nurl = "sqlite:///moved.db"')

        assert "session-of-ada" in aibridge("sessions", "--config", "settings.toml").output
        assert "session-of-ada" in aibridge("sessions", AIBRIDGE_CONFIG="settings.toml").output

    def test_can_be_said_by_a_url_which_wins(self, aibridge: Callable[..., Result], folder: Path) -> None:
        url = f"sqlite:///{folder}/aibridge.db"

        told = aibridge("sessions", "--database", url, AIBRIDGE_STORAGE_URL="sqlite:///nowhere.db").output

        assert "session-of-ada" in told

    def test_is_said_wrongly(self, aibridge: Callable[..., Result]) -> None:
        result = aibridge("sessions", "--database", "aibridge.db")

        assert result.exit_code == 2
        assert 'found "aibridge.db"; allowed is "sqlite:///records.db"' in result.stderr

    def test_is_nowhere(self, aibridge: Callable[..., Result]) -> None:
        result = aibridge("usage", "--database", "sqlite:///nowhere.db")

        assert result.exit_code == 2
        assert result.stderr.startswith("aibridge: there is no database nowhere.db: start `aibridge serve`")


class TestWrongSettings:
    @pytest.mark.parametrize("command", ["serve", "check"])
    def test_end_the_program_with_a_line_for_each(self, aibridge: Callable[..., Result], command: str) -> None:
        Path("settings.toml").write_text("[server]\nport = 'eighty'\nprot = 80")

        result = aibridge(command, "--config", "settings.toml")

        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.splitlines() == [
            'aibridge: server.port: found "eighty"; allowed is a whole number from 0 to 65535',
            "aibridge: server.prot: no such setting; did you mean port?",
        ]

    def test_show_no_traceback_to_who_runs_the_program(self, folder: Path) -> None:
        program = [sys.executable, "-c", "from aibridge.server.cli import main; main()", "serve"]

        ended = subprocess.run(
            [*program, "--config", "nowhere.toml"], cwd=folder, capture_output=True, text=True, check=False
        )

        assert ended.returncode == 2
        assert ended.stderr == (
            "aibridge: the settings file nowhere.toml (--config) can not be read: No such file or directory\n"
        )


class TestTimes:
    @pytest.mark.parametrize("written", ["2026-01-31", "2026-01-31T00:00", "2026-01-31T01:00+01:00", "20260131"])
    def test_are_utc_unless_they_say_otherwise(self, written: str) -> None:
        assert moment(written) == datetime(2026, 1, 31, tzinfo=UTC)

    def test_can_be_so_long_ago(self) -> None:
        before = datetime.now(UTC)

        assert 86_390 < (before - moment("1d")).total_seconds() <= 86_400

    @pytest.mark.parametrize("written", ["yesterday", "2026", "7", "999999999999999d", ""])
    def test_that_are_none_are_refused(self, written: str) -> None:
        with pytest.raises(click.BadParameter, match="allowed is a date or time such as"):
            moment(written)


def _examples(command: click.Command) -> list[str]:
    assert command.epilog is not None
    return [line.strip() for line in command.epilog.splitlines() if "aibridge" in line]
