"""`aibridge journal`: what an operator sees of the files, checks of them, and brings into the database."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aibridge.recording.journal import Journal
from aibridge.recording.ledger import Ledger
from aibridge.recording.sqlite import SQLiteStore
from aibridge.server.cli import main
from recording.samples import end_of, interception, prompt, rows, tokens

DIRECTORY = Path("aibridge-journal")
DATABASE = Path("aibridge.db")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AIBRIDGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def journal() -> Iterator[Journal]:
    """The journal of a living process: an exchange, and the beginning of another."""
    journal = Journal(DIRECTORY)
    journal.append(interception("a", second=1), prompt("a", "What is \x00 the secret of life?"))
    journal.append(tokens("a"), end_of("a", second=60))
    journal.append(interception("b", second=5))
    yield journal
    journal.close()


@pytest.fixture
def left(journal: Journal) -> Path:
    """The file of the same journal, once its process is dead."""
    journal.close()
    (file,) = DIRECTORY.iterdir()
    return file


def aibridge(*command: str) -> Result:
    return CliRunner().invoke(main, ["journal", *command], catch_exceptions=False)


def asked(*command: str) -> dict[str, object]:
    """The only file that a command tells of as JSON."""
    (file,) = json.loads(aibridge(*command, "--json").stdout)["files"]
    assert isinstance(file, dict)
    return file


def damage(file: Path) -> None:
    """Change a letter of the prompt, as a bad disk does."""
    file.write_bytes(file.read_bytes().replace(b"secret of life", b"secret of lice"))


def stored() -> list[tuple[object, ...]]:
    return sorted(rows(DATABASE, "SELECT id, status FROM aibridge_interceptions"))


ALL = [("a", "completed"), ("b", None)]


class TestInspect:
    def test_tells_what_there_is_but_no_contents(self, journal: Journal) -> None:
        (file,) = DIRECTORY.iterdir()
        told = asked("inspect")
        assert told == {
            "file": str(file),
            "size": file.stat().st_size,
            "owned": True,
            "entries": {"interception": 2, "prompt_usage": 1, "token_usage": 1, "interception_ended": 1},
            "first": "2026-03-01T12:00:00Z",
            "last": "2026-03-01T12:01:00Z",
            "damaged": 0,
            "unfinished": 0,
            "problem": None,
        }
        text = aibridge("inspect").stdout
        for each in (file.name, "alive", "2 interception", "1 token usage", "2026-03-01 12:01:00"):
            assert each in text
        assert "secret" not in text

    def test_shows_contents_where_that_is_asked_for(self, left: Path) -> None:
        lines = [json.loads(line) for line in aibridge("inspect", "--contents").stdout.splitlines()]
        assert [each["type"] for each in lines].count("interception") == 2
        assert "What is \x00 the secret of life?" in [each.get("prompt") for each in lines]

    def test_tells_that_the_owner_is_dead_and_what_is_damaged(self, left: Path) -> None:
        damage(left)
        left.write_bytes(left.read_bytes()[:-20])
        told = asked("inspect", str(left))
        assert (told["owned"], told["damaged"]) == (False, 1)
        assert isinstance(told["unfinished"], int)
        assert told["unfinished"] > 100
        assert "1 damaged" in aibridge("inspect").stdout

    def test_of_a_journal_that_is_empty(self) -> None:
        DIRECTORY.mkdir()
        assert "what was recorded is stored" in aibridge("inspect").stdout

    def test_of_a_place_that_is_not_there(self) -> None:
        failed = aibridge("inspect", "elsewhere")
        assert failed.exit_code == 2
        assert failed.stderr == "aibridge: there is no file or folder elsewhere\n"


class TestVerify:
    def test_finds_all_whole(self, left: Path) -> None:
        result = aibridge("verify")
        assert result.exit_code == 0
        assert result.stdout == f"{left}: 5 entries are whole\n"

    def test_finds_one_changed_letter(self, left: Path) -> None:
        damage(left)
        result = aibridge("verify")
        assert result.exit_code == 1
        assert result.stdout == f"{left}: 4 entries are whole; 1 damaged\n"

    def test_finds_an_entry_that_was_never_finished_unless_it_is_being_written(self, journal: Journal) -> None:
        (file,) = DIRECTORY.iterdir()
        with file.open("ab") as torn:
            torn.write(b"0123")
        result = aibridge("verify")
        assert result.exit_code == 0
        assert "4 bytes being written" in result.stdout
        journal.close()
        result = aibridge("verify")
        assert result.exit_code == 1
        assert "4 bytes of an entry that was never finished" in result.stdout

    def test_finds_what_is_no_journal(self) -> None:
        other = Path("other.journal")
        other.write_text("Once upon a time")
        result = aibridge("verify", str(other))
        assert result.exit_code == 1
        assert "is not a journal that this version of aibridge can read" in result.stdout


class TestReplay:
    def test_stores_a_file_of_another_machine_once_however_often_it_is_told_to(self, left: Path) -> None:
        copy = Path("copy-of-another-machine")
        shutil.move(left, copy)
        for _ in range(2):
            result = aibridge("replay", str(copy))
            assert result.exit_code == 0
            assert result.stdout == f"{copy}: 5 entries are stored\n"
            assert stored() == ALL
            assert rows(DATABASE, "SELECT count(*) FROM aibridge_token_usages") == [(1,)]
        assert copy.exists()

    def test_stores_what_is_left_of_a_damaged_file(self, left: Path) -> None:
        damage(left)
        damaged = left.rename(left.with_suffix(".damaged"))
        result = aibridge("replay")
        assert result.exit_code == 1
        assert result.stdout == f"{damaged}: 4 entries are stored; 1 damaged\n"
        assert stored() == ALL

    def test_stores_into_the_database_that_is_named(self, left: Path) -> None:
        assert aibridge("replay", "--database", "sqlite:///other.db").exit_code == 0
        assert rows(Path("other.db"), "SELECT count(*) FROM aibridge_interceptions") == [(2,)]
        assert not DATABASE.exists()

    def test_leaves_the_file_of_a_living_process_to_it(self, journal: Journal) -> None:
        result = aibridge("replay")
        assert result.exit_code == 0
        assert "left to the living process" in result.stdout
        assert stored() == []

    def test_waits_for_a_database_that_is_locked(self, left: Path) -> None:
        SQLiteStore(DATABASE).close()
        with closing(sqlite3.connect(DATABASE, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            timer = threading.Timer(1.5, other.execute, ["ROLLBACK"])
            timer.start()
            result = aibridge("replay")
            timer.join()
        assert result.exit_code == 0
        assert stored() == ALL


async def test_all_of_it_is_safe_beside_a_running_gateway(left: Path) -> None:
    """The commands run while a gateway records, and takes over the file that is replayed."""
    ledger = Ledger(DIRECTORY, SQLiteStore(DATABASE))
    await ledger.start()
    stop = threading.Event()
    faults: list[str] = []

    def operate() -> None:
        while not stop.is_set():
            for command in ("inspect", "verify", "replay"):
                result = aibridge(command)
                if result.exit_code:
                    faults.append(result.output)

    operator = threading.Thread(target=operate)
    operator.start()
    try:
        for number in range(3000):
            await ledger.record_all([interception(f"{number:04}"), prompt(f"{number:04}")])
            await ledger.record_interception_ended(end_of(f"{number:04}"))
        await ledger.aclose()
    finally:
        stop.set()
        operator.join()
    assert faults == []
    assert stored() == [*((f"{number:04}", "completed") for number in range(3000)), *ALL]
    assert rows(DATABASE, "SELECT count(*) FROM aibridge_user_prompts") == [(3001,)]


def test_a_file_that_is_gone_is_passed_over(left: Path) -> None:
    """Between listing and reading a gateway may have stored and deleted it."""
    from aibridge.server import journals
    from aibridge.server.settings import Audit, Storage

    files = journals.files([], Storage())
    left.unlink()
    assert journals.inspected(files) == []
    assert list(journals.contents(files)) == []
    assert journals.replayed(files, Storage(), Audit()) == []


def test_everything_is_told_where_a_file_can_not_be_opened(tmp_path: Path) -> None:
    DIRECTORY.mkdir()
    (DIRECTORY / "odd.journal").mkdir()
    assert "Is a directory" in aibridge("verify").stdout
    assert aibridge("replay").exit_code == 1
