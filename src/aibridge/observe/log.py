"""Structured log lines: one JSON object a line, or text for people."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from aibridge.observe.lines import Lines
from aibridge.records import Status

_interceptions = logging.getLogger("aibridge.interceptions")
_encode = msgspec.json.Encoder().encode
_standard_error = Lines(2)
_direct = False
"""Whether lines of interceptions need no `LogRecord`, since `configure` said what becomes of them."""


class InterceptionFacts(msgspec.Struct, gc=False):
    """What the line of an interception that has ended tells."""

    interception_id: str
    actor: str
    client: str
    session: str | None
    provider: str
    route: str
    model: str
    streaming: bool
    status: Status
    http_status: int | None
    error_type: str | None
    retries: int
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    duration_ms: float
    overhead_ms: float


def tell(facts: InterceptionFacts, time: datetime) -> None:
    """Log the line of an interception that ended at a time (in UTC).

    It is a record of the logger `aibridge.interceptions`, with the facts as `facts`; that this takes it is for the
    caller to see. Where such a record would become a line of JSON on standard error, the line is written without one,
    in a fraction of the time, and may wait for others.
    """
    if not _direct:
        _interceptions.info("interception %s", facts.status, extra={"facts": msgspec.structs.asdict(facts)})
    else:
        status = facts.status.encode()
        _standard_error.write_soon(
            b"".join((b'{"time":', _encode(time), _SAME_IN_EVERY_LINE, status, b'",', _encode(facts)[1:], b"\n"))
        )


_SAME_IN_EVERY_LINE = b',"level":"info","logger":"aibridge.interceptions","message":"interception '


class JSONFormatter(logging.Formatter):
    """A record as one JSON object; what was given as `extra={"facts": {...}}` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without a line end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).decode()


class TextFormatter(logging.Formatter):
    """The same for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The message, then each fact as `name=value`."""
        facts = getattr(record, "facts", {})
        told = "".join(f" {name}={value}" for name, value in facts.items() if value is not None)
        return super().format(record) + told


class StandardError(logging.Handler):
    """Writes each line to standard error at once, in one piece, so that lines of several workers do not mix."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a log that can not be written stops nothing."""
        _standard_error.write((self.format(record) + "\n").encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Write what waits, as Python asks at its end."""
        _standard_error.flush()


def flush() -> None:
    """Write what waits, in a process that a signal may end before Python does it."""
    _standard_error.flush()


def configure(form: str, level: str) -> None:
    """Send the log of the whole process to standard error; `form` is `json`, `text`, or `auto`: text on a terminal."""
    global _direct
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    _direct = not text
    # What no line shows need not be found out (docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = StandardError()
    handler.setFormatter(TextFormatter() if text else JSONFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # what it says below that quotes tokens and secrets
