"""`aibridge check`: an operator learns what would keep the gateway from working, and what to do about it."""

from __future__ import annotations

import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aibridge.recording.postgres.store import PostgresStore
from aibridge.recording.schema import REVISION
from aibridge.recording.stores import sqlite_path
from aibridge.server import simulated_upstream
from aibridge.server.check import check
from aibridge.server.settings import Audit, MCPServer, Provider, Settings, Storage
from aibridge.server.values import Secret
from support.postgres import PASSWORD, PostgreSQL

KEY = "sk-secret-0123456789-abcdef"


@contextmanager
def answering(status: int, **headers: str) -> Iterator[tuple[str, list[Any]]]:
    """A provider that always answers so: its URL, and the requests that it gets."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self)
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()


@contextmanager
def knowing(keys: dict[str, int]) -> Iterator[str]:
    """A provider that answers so to each key, and 401 to others."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            key = self.headers["X-Api-Key"] or self.headers["api-key"]
            is_azure = self.headers["X-Team"] == "tides" and self.path == "/v1/models?api-version=2026-01-01"
            assert is_azure or self.headers["X-Api-Key"]
            self.send_response(keys.get(key, 401))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Where there is nothing yet, and everything can be made."""
    return Storage(url=f"sqlite:///{tmp_path}/records.db", journal_dir=tmp_path / "journal")


def anthropic(base_url: str, key: str | None = KEY, **settings: Any) -> Provider:
    """An Anthropic provider at this URL."""
    return Provider(
        type="anthropic", name="anthropic", base_url=base_url, api_key=Secret(key) if key else None, **settings
    )


def outcome(capsys: pytest.CaptureFixture[str], settings: Settings) -> tuple[int, str]:
    """The exit status and what was printed, which is never a secret."""
    status = check(settings)
    printed = capsys.readouterr().out
    assert KEY not in printed
    return status, printed


class TestProviders:
    def test_all_well(self, capsys: pytest.CaptureFixture[str], storage: Storage) -> None:
        with simulated_upstream.serve() as url:
            openai = Provider(type="openai", name="openai", base_url=f"{url}/v1", api_key=Secret(KEY))
            copilot = Provider(type="copilot", name="copilot", base_url=url)
            status, printed = outcome(capsys, Settings(storage=storage, providers=(anthropic(url), openai, copilot)))
        assert status == 0, printed
        assert "anthropic     " in printed
        assert printed.count("credential accepted") == 2
        assert printed.count("no credential configured: clients bring theirs") == 1

    @pytest.mark.parametrize("type_", ["anthropic", "openai"])
    def test_models_are_asked_for_as_the_gateway_would(
        self, type_: Any, capsys: pytest.CaptureFixture[str], storage: Storage
    ) -> None:
        with answering(200) as (url, requests):
            base_url = url if type_ == "anthropic" else f"{url}/v1"
            provider = Provider(type=type_, name="p", base_url=base_url, api_key=Secret(KEY))
            assert outcome(capsys, Settings(storage=storage, providers=(provider,)))[0] == 0
        (request,) = requests
        assert request.path == "/v1/models"
        sent = request.headers["X-Api-Key"] if type_ == "anthropic" else request.headers["Authorization"]
        assert sent == (KEY if type_ == "anthropic" else f"Bearer {KEY}")

    @pytest.mark.parametrize(
        ("answer", "settings", "status", "told"),
        [
            (401, {"api_key_env": "MY_KEY"}, 1, "credential refused (401): put a valid key into the variable MY_KEY"),
            (403, {}, 1, "credential refused (403)"),
            (401, {"key": None}, 0, "clients bring theirs"),
            (401, {"key": None, "byok": False}, 1, "set api_key_env"),
            (404, {}, 0, "see its base_url"),
            (503, {}, 1, "it answers 503"),
        ],
    )
    def test_what_an_answer_says(
        self,
        answer: int,
        settings: dict[str, Any],
        status: int,
        told: str,
        capsys: pytest.CaptureFixture[str],
        storage: Storage,
    ) -> None:
        with answering(answer) as (url, _):
            found = outcome(capsys, Settings(storage=storage, providers=(anthropic(url, **settings),)))
        assert found[0] == status
        assert told in found[1]
        assert "reachable without TLS" in found[1]

    def test_each_key_is_tried(self, capsys: pytest.CaptureFixture[str], storage: Storage) -> None:
        """And a refusal says where the key stands, and which it is; never the key."""
        with knowing({"sk-good-0123456789-abcdef": 200, "sk-busy-0123456789-ghijkl": 429}) as url:
            keys = tuple(map(Secret, ("sk-good-0123456789-abcdef", KEY, "sk-busy-0123456789-ghijkl")))
            named = Provider(
                type="openai",
                name="named",
                base_url=f"{url}/v1",
                api_keys=keys,
                api_key_envs=("GOOD", "BAD", "BUSY"),
                key_header="api-key",
                headers={"X-Team": Secret("tides")},
                query={"api-version": "2026-01-01"},
            )
            listed = Provider(type="anthropic", name="listed", base_url=url, api_keys=keys)
            status, printed = outcome(capsys, Settings(storage=storage, providers=(named, listed)))
        assert status == 1
        assert "0123456789" not in printed
        assert f"{url}/v1, key 1 (sk-g...cdef): reachable without TLS, credential accepted\n" in printed
        assert "key 2 (sk-s...cdef): reachable without TLS, credential refused (401): " in printed
        assert "put a valid key into the variable BAD\n" in printed
        assert "put a valid key into the place of api_keys[1]\n" in printed
        assert printed.count("credential accepted, but limited at the moment (429)") == 2
        assert printed.count("FAIL") == 2

    def test_a_redirect_is_told_without_its_path(self, capsys: pytest.CaptureFixture[str], storage: Storage) -> None:
        with answering(301, Location="https://api.example.com/v1/models?token=t0k3n") as (url, _):
            status, printed = outcome(capsys, Settings(storage=storage, providers=(anthropic(url),)))
        assert status == 1
        assert "redirects to https://api.example.com," in printed
        assert "t0k3n" not in printed

    def test_nobody_there(self, capsys: pytest.CaptureFixture[str], storage: Storage) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        status, printed = outcome(capsys, Settings(storage=storage, providers=(anthropic(f"http://127.0.0.1:{port}"),)))
        assert status == 1
        assert "could not be reached: Connection refused; see its base_url" in printed

    def test_no_tls_where_it_is_due(self, capsys: pytest.CaptureFixture[str], storage: Storage) -> None:
        with answering(200) as (url, _):
            secure = url.replace("http:", "https:")
            status, printed = outcome(capsys, Settings(storage=storage, providers=(anthropic(secure),)))
        assert status == 1
        assert "no secure connection" in printed

    def test_none_configured(self, capsys: pytest.CaptureFixture[str], storage: Storage) -> None:
        status, printed = outcome(capsys, Settings(storage=storage))
        assert status == 1
        assert "none is configured: write a [[providers]] table" in printed


class TestStorage:
    def test_postgresql(self, capsys: pytest.CaptureFixture[str], storage: Storage, postgresql: PostgreSQL) -> None:
        url = postgresql.new_database()
        settings = Settings(storage=msgspec.structs.replace(storage, url=url))
        assert "can be reached; its tables will be made" in outcome(capsys, settings)[1]
        PostgresStore(url).close()
        assert f"has schema {REVISION}, as it should be" in outcome(capsys, settings)[1]
        postgresql.rows("UPDATE aibridge_schema_version SET version_num = '0001'", url=url)
        printed = outcome(capsys, settings)[1]
        assert f"has schema 0001, {REVISION} is needed: run `aibridge db upgrade`" in printed
        assert PASSWORD not in printed

        missing = Settings(storage=msgspec.structs.replace(storage, url=postgresql.url("missing")))
        printed = outcome(capsys, missing)[1]
        assert 'database "missing" does not exist' in printed
        assert PASSWORD not in printed

    def test_nothing_is_made(self, capsys: pytest.CaptureFixture[str], storage: Storage, tmp_path: Path) -> None:
        _, printed = outcome(capsys, Settings(storage=storage))
        assert printed.count("will be made at the start") == 2
        assert not list(tmp_path.iterdir())

    def test_what_is_there_stays(self, capsys: pytest.CaptureFixture[str], storage: Storage, tmp_path: Path) -> None:
        storage.journal_dir.mkdir()
        with closing(sqlite3.connect(sqlite_path(storage.url))) as database:
            database.execute("CREATE TABLE kept (it)")
        before = sqlite_path(storage.url).read_bytes()
        _, printed = outcome(capsys, Settings(storage=storage))
        assert printed.count("can be written") == 2
        assert sqlite_path(storage.url).read_bytes() == before
        assert not list(storage.journal_dir.iterdir())

    def test_the_folder_of_an_audit_trail(
        self, capsys: pytest.CaptureFixture[str], storage: Storage, tmp_path: Path
    ) -> None:
        folder = tmp_path / "audit"
        settings = Settings(storage=storage, audit=Audit(dir=folder))
        assert f"{folder} will be made at the start" in outcome(capsys, settings)[1]
        folder.write_text("")
        status, printed = outcome(capsys, settings)
        assert status == 1
        assert "set audit.dir to another folder" in printed

    def test_a_file_in_the_place_of_the_journal(self, capsys: pytest.CaptureFixture[str], storage: Storage) -> None:
        storage.journal_dir.write_text("")
        status, printed = outcome(capsys, Settings(storage=storage))
        assert status == 1
        assert "set storage.journal_dir to another folder" in printed

    def test_no_database(self, capsys: pytest.CaptureFixture[str], storage: Storage) -> None:
        sqlite_path(storage.url).write_text("This is a letter to a friend, and not a database of SQLite at all.")
        status, printed = outcome(capsys, Settings(storage=storage))
        assert status == 1
        assert "file is not a database" in printed
        assert "set storage.url to another one" in printed

    def test_a_database_in_no_folder(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        storage = Storage(url=f"sqlite:///{tmp_path}/nowhere/records.db", journal_dir=tmp_path)
        status, printed = outcome(capsys, Settings(storage=storage))
        assert status == 1
        assert "does not exist: make it, or change storage.url" in printed


def test_mcp_servers_are_connected_to(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    here = MCPServer(name="tides", command=(sys.executable, "-m", "aibridge.server.demo_tools"))
    gone = MCPServer(name="gone", url="http://127.0.0.1:9/mcp")
    with simulated_upstream.serve(simulated_upstream.create()) as url:
        status, told = outcome(capsys, Settings(storage=storage, providers=(anthropic(url),), mcp_servers=(here, gone)))
    assert status == 1
    assert "tides         MCP server reachable; 1 of its tools are offered" in told
    assert "FAIL  gone          MCP server not reachable" in told
