"""Sending the audit trail on, by OTLP over HTTP.

Source of the format: https://opentelemetry.io/docs/specs/otlp/#otlphttp, in its JSON encoding. Each line of the trail
is the body of a log record, whole, so that who receives it can verify the chain.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import datetime
from socket import gethostname
from typing import Any

import aiohttp
import msgspec

from aibridge.recording.audit import Position, Reader
from aibridge.recording.visible import visible

_log = logging.getLogger("aibridge.server")

BATCH = 256 << 10
"""The bytes of lines that one request holds, more or less."""
_TIMEOUT = aiohttp.ClientTimeout(total=30.0)
_REST = 1.0
"""Seconds until it is looked for new lines again."""
_LONGEST_PAUSE = 60.0
"""Seconds between two attempts to send what was not taken, at most."""

_TIMES = ("started_at", "ended_at", "created_at")
_SCOPE = "aibridge.audit"
_ATTRIBUTES = ("initiator_id", "provider_name", "model", "client", "client_session_id", "tool", "status", "http_status")
"""What of a record is told as attributes too, for a SIEM that does not look into bodies."""


class Forwarder:
    """Sends the lines of a trail to a collector of logs, each at least once. One process of several does so.

    What the collector does not take is sent again until it does: nothing is left out, and nothing overtakes.
    """

    def __init__(self, reader: Reader, endpoint: str, headers: Mapping[str, str]) -> None:
        self.problem: str | None = None
        """Why nothing can be sent just now; None while it can."""
        self._reader = reader
        self._endpoint = endpoint
        self._headers = {"Content-Type": "application/json", **headers}

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
                while True:
                    try:
                        if await asyncio.to_thread(self._reader.alone):
                            while await self._send_some(session):
                                pass
                    except OSError as error:
                        self._tell(f"the trail can not be read: {error}")
                    except Exception as error:  # noqa: BLE001  # it must not end with one fault
                        self._tell(f"the trail can not be read ({type(error).__name__})")
                    await asyncio.sleep(_REST)
        finally:
            self._reader.close()

    async def _send_some(self, session: aiohttp.ClientSession) -> bool:
        """Send the next lines, however often it takes; False where there are none."""
        body, position = await asyncio.to_thread(self._next_request)
        if body is None:
            return False
        pause = _REST
        while (asked := await self._refused(session, body)) is not None:
            await asyncio.sleep(min(max(pause, asked), _LONGEST_PAUSE))
            pause *= 2
        await asyncio.to_thread(self._reader.settle, position)
        return True

    def _next_request(self) -> tuple[bytes | None, Position]:
        """The body of the next request, and what to settle once it is taken; None where there are no lines."""
        lines, position = self._reader.read(BATCH)
        return (msgspec.json.encode(log_request(lines)) if lines else None), position

    async def _refused(self, session: aiohttp.ClientSession, body: bytes) -> float | None:
        """Send a request once: None where it was taken, else after how many seconds the collector wants it again."""
        try:
            async with session.post(self._endpoint, data=body, headers=self._headers, allow_redirects=False) as answer:
                said = await answer.content.read(64 << 10)
                if answer.status == 200:
                    self._tell(_left_out(said))
                    return None
                self._tell(f"the collector at audit.otlp_endpoint answers {answer.status}: see its log")
                asked = answer.headers.get("Retry-After", "")
                return float(asked) if asked.isdigit() else 0.0
        except (aiohttp.ClientError, TimeoutError) as error:
            told = str(error) or type(error).__name__
            self._tell(f"the collector at audit.otlp_endpoint can not be reached ({told})")
            return 0.0

    def _tell(self, problem: str | None) -> None:
        if problem and problem != self.problem:
            _log.error("The audit trail is not sent on: %s", problem)
        elif self.problem and not problem:
            _log.info("The audit trail is sent on again")
        self.problem = problem


def _left_out(said: bytes) -> str | None:
    """What a collector that took a request says that it left out of it; it must not be sent again."""
    try:
        partial = msgspec.json.decode(said).get("partialSuccess") or {}
        rejected = int(partial.get("rejectedLogRecords") or 0)
    except (msgspec.DecodeError, AttributeError, ValueError, TypeError):
        return None
    return f"the collector left out {rejected} records: {partial.get('errorMessage')}" if rejected else None


def log_request(lines: list[bytes]) -> dict[str, Any]:
    """Lines of the trail as an ExportLogsServiceRequest."""
    resource = {"attributes": _attributes({"service.name": "aibridge", "host.name": gethostname()})}
    records = [_log_record(line) for line in lines]
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": {"name": _SCOPE}, "logRecords": records}]}]}


def _log_record(line: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(line)  # msgspec refuses lone surrogates, which a record may hold as escapes
    time = next((told[name] for name in _TIMES if told.get(name)), None)
    attributes = {f"aibridge.{name}": told[name] for name in _ATTRIBUTES if told.get(name) is not None}
    attributes["aibridge.interception_id"] = told.get("interception_id") or told.get("id")
    return {
        "timeUnixNano": str(_nanoseconds(time)),
        "severityNumber": 9,
        "severityText": "INFO",
        "eventName": f"aibridge.{told['type']}",
        "body": {"stringValue": line.decode()},
        "attributes": _attributes({"aibridge.seq": told["seq"], **attributes}),
    }


def _nanoseconds(time: str | None) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1_000_000) * 1000 if time else 0


def _attributes(values: Mapping[str, object]) -> list[dict[str, Any]]:
    """Attributes in OTLP's JSON, where 64-bit integers are texts."""
    kinds = {name: "intValue" if isinstance(value, int) else "stringValue" for name, value in values.items()}
    return [{"key": name, "value": {kinds[name]: visible(str(value))}} for name, value in values.items()]
