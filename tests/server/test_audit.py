"""A gateway with an audit trail: every record is a line, and a collector of logs gets every line, whatever happens."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aibridge.errors import SettingsError
from aibridge.recording.audit import AuditTrail, Position, files, position_in
from aibridge.records import InterceptionEnded, TokenUsage, new_id
from aibridge.server import forwarding
from aibridge.server.audit import forwarder
from aibridge.server.cli import main
from aibridge.server.gateway import Gateway
from aibridge.server.settings import Audit, Auth, Provider, Settings, Storage
from aibridge.server.values import Secret
from support.client import ask
from support.dialects import MESSAGES, PROMPT
from support.process import ACTOR, running
from support.provider import Provider as Upstream
from support.provider import events
from support.serving import serving
from support.waiting import until


class Collector:
    """Takes logs by OTLP, and answers what it is told to: first the statuses in `refusals`, then 200."""

    def __init__(self) -> None:
        self.refusals: list[int] = []
        self.asked = 0
        self.headers: dict[bytes, bytes] = {}
        self.records: list[dict[str, Any]] = []
        self.says = b"{}"

    @property
    def numbers(self) -> list[int]:
        return [json.loads(record["body"]["stringValue"])["seq"] for record in self.records]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.asked += 1
        self.headers = dict(scope["headers"])
        status = self.refusals.pop(0) if self.refusals else 200
        if status == 200:
            assert scope["path"] == "/v1/logs"
            for resource in json.loads(body)["resourceLogs"]:
                for each in resource["scopeLogs"]:
                    self.records += each["logRecords"]
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": self.says})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_REST", 0.02)


def usage(number: int) -> TokenUsage:
    return TokenUsage(
        id=new_id(),
        interception_id=f"i-{number}",
        provider_response_id=None,
        input_tokens=1,
        output_tokens=1,
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
    )


@asynccontextmanager
async def sending(settings: Audit) -> AsyncIterator[forwarding.Forwarder]:
    made = forwarder(settings)
    assert made
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_gateway_keeps_a_trail(tmp_path: Path, provider: Upstream) -> None:
    provider.says(events(MESSAGES.stream))
    collector, folder = Collector(), tmp_path / "audit"
    async with serving(collector) as logs:
        gateway = Gateway(
            Settings(
                auth=Auth(mode="none"),
                storage=Storage(url=f"sqlite:///{tmp_path}/aibridge.db", journal_dir=tmp_path / "journal"),
                audit=Audit(dir=folder, otlp_endpoint=f"{logs}/v1/logs", otlp_headers={"X-Token": Secret("hush")}),
                providers=(Provider(type="anthropic", name="anthropic", base_url=provider.url),),
            )
        )
        async with serving(gateway, lifespan=True) as url:
            answer = await ask(url + MESSAGES.path, MESSAGES.request())
            assert answer.complete
            await until(
                lambda: any(record["eventName"] == "aibridge.interception_ended" for record in collector.records),
                "the end is with the collector",
            )
    assert collector.headers[b"x-token"] == b"hush"
    assert collector.numbers == list(range(1, len(collector.records) + 1))
    first = collector.records[0]
    told = {each["key"]: each["value"] for each in first["attributes"]}
    assert told["aibridge.interception_id"] == {"stringValue": answer.id}
    assert told["aibridge.model"] == {"stringValue": MESSAGES.asking["model"]}
    assert told["aibridge.seq"] == {"intValue": "1"}
    assert int(first["timeUnixNano"]) > 1_700_000_000 * 10**9
    assert PROMPT not in str(collector.records)
    written = [line for path in files(folder) for line in path.read_text().splitlines()]
    assert [record["body"]["stringValue"] for record in collector.records] == written
    verified = CliRunner().invoke(main, ["export", "verify", *map(str, files(folder))])
    assert verified.output.startswith(f"ok: lines 1 to {len(written)}"), verified.output


async def test_what_is_not_taken_is_sent_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    collector, trail = Collector(), AuditTrail(tmp_path)
    collector.refusals = [503, 429, 400, 302]
    trail.append([usage(number) for number in range(3)])
    async with serving(collector) as logs, sending(Audit(dir=tmp_path, otlp_endpoint=f"{logs}/v1/logs")) as sender:
        with caplog.at_level(logging.INFO, "aibridge.server"):
            await until(lambda: sender.problem, "it is known that something is wrong")
            await until(lambda: collector.numbers == [1, 2, 3], "everything arrives")
            await until(lambda: sender.problem is None, "all is well again")
    assert collector.asked == 5
    assert "the collector at audit.otlp_endpoint answers 503" in caplog.text
    assert caplog.messages[-1] == "The audit trail is sent on again"


async def test_its_position_survives(tmp_path: Path) -> None:
    collector, trail = Collector(), AuditTrail(tmp_path, max_file_size=500)
    async with serving(collector) as logs:
        settings = Audit(dir=tmp_path, otlp_endpoint=f"{logs}/v1/logs")
        for _ in range(3):
            trail.append([usage(1), usage(2)])
            async with sending(settings):
                last = files(tmp_path)[-1]
                end = Position(last.name, last.stat().st_size)
                await until(lambda: position_in(tmp_path) == end, "it is known to be sent")  # noqa: B023
    assert collector.numbers == [1, 2, 3, 4, 5, 6], "nothing twice where nobody is killed in the middle"


async def test_a_collector_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path)
    trail.append([usage(1)])
    async with sending(Audit(dir=tmp_path, otlp_endpoint="http://127.0.0.1:1/v1/logs")) as sender:
        await until(lambda: sender.problem, "it is known")
        assert "can not be reached" in (sender.problem or "")
    collector = Collector()
    async with serving(collector) as logs, sending(Audit(dir=tmp_path, otlp_endpoint=f"{logs}/v1/logs")):
        await until(lambda: collector.numbers == [1], "nothing is lost")


async def test_one_process_sends(tmp_path: Path) -> None:
    collector, trail = Collector(), AuditTrail(tmp_path)
    async with serving(collector) as logs:
        settings = Audit(dir=tmp_path, otlp_endpoint=f"{logs}/v1/logs")
        async with sending(settings), sending(settings):
            for number in range(1, 6):
                trail.append([usage(number)])
                await until(lambda: len(collector.records) >= number, "it is sent")  # noqa: B023
    assert collector.numbers == [1, 2, 3, 4, 5]


async def test_what_a_collector_leaves_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    collector, trail = Collector(), AuditTrail(tmp_path)
    collector.says = b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too old"}}'
    trail.append([usage(1)])
    async with serving(collector) as logs, sending(Audit(dir=tmp_path, otlp_endpoint=f"{logs}/v1/logs")):
        await until(lambda: "left out 1 records: too old" in caplog.text, "it is in the log")


def test_there_is_none_by_default() -> None:
    assert forwarder(Audit()) is None
    with pytest.raises(SettingsError, match=r"^audit\.otlp_endpoint: there is no trail to send"):
        forwarder(Audit(otlp_endpoint="http://127.0.0.1:1/"))


async def test_a_record_with_half_a_character_is_sent_too(tmp_path: Path) -> None:
    collector, trail = Collector(), AuditTrail(tmp_path, contents=True)
    end = InterceptionEnded(
        interception_id="i \udfff", ended_at=datetime(2026, 3, 1, tzinfo=UTC), status="failed", error_message="\ud800"
    )
    trail.append([end, usage(1)])
    async with serving(collector) as logs, sending(Audit(dir=tmp_path, otlp_endpoint=f"{logs}/v1/logs")):
        await until(lambda: collector.numbers == [1, 2], "both are there")
    assert json.loads(collector.records[0]["body"]["stringValue"])["error_message"] == "\ud800"
    told = {each["key"]: each["value"] for each in collector.records[0]["attributes"]}
    assert told["aibridge.interception_id"] == {"stringValue": r"i \udfff"}


TABLES = ("interceptions", "token_usages", "user_prompts", "tool_usages", "model_thoughts")


async def _quietly_ask(url: str) -> bool:
    """Ask; whether an answer came, for the gateway may be killed meanwhile."""
    try:
        return (await ask(url + MESSAGES.path, MESSAGES.request(), ACTOR)).complete
    except (OSError, asyncio.IncompleteReadError):
        return False


async def test_workers_that_are_killed_leave_a_whole_trail(tmp_path: Path, provider: Upstream) -> None:
    """Whatever is stored is in it, and every line reaches the collector, in order; some may do so twice."""
    provider.says(events(MESSAGES.stream))
    collector, folder = Collector(), tmp_path / "audit"
    async with serving(collector) as logs:
        settings: dict[str, Any] = {"AUDIT_DIR": str(folder), "AUDIT_OTLP_ENDPOINT": f"{logs}/v1/logs"}
        with running(tmp_path, provider.url, workers=2, **settings) as gateway:
            for _ in range(3):
                asking = [asyncio.create_task(_quietly_ask(gateway.url)) for _ in range(30)]
                await until(lambda: files(folder), "there is a trail")
                await asyncio.to_thread(gateway.kill)
                await asyncio.gather(*asking)
                await asyncio.to_thread(gateway.start)
            assert await _quietly_ask(gateway.url)
            assert gateway.stop() in (0, -signal.SIGTERM)
        written = [json.loads(line) for path in files(folder) for line in path.read_bytes().splitlines()]
        stored = {row["id"] for table in TABLES for row in gateway.rows(table)}
        assert stored
        assert stored <= {told.get("id") for told in written}
        verified = CliRunner().invoke(main, ["export", "verify", *map(str, files(folder))])
        assert verified.exit_code == 0, verified.output
        async with sending(Audit(dir=folder, otlp_endpoint=settings["AUDIT_OTLP_ENDPOINT"])):
            await until(lambda: set(collector.numbers) == set(range(1, len(written) + 1)), "all lines are sent")
    first = list(dict.fromkeys(collector.numbers))
    assert first == sorted(first), "none overtakes another"
