"""Structured log lines: one JSON object a line, or text for people."""

from __future__ import annotations

import logging
import os
import sys
from asyncio import CancelledError
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec


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
        return msgspec.json.encode(line).decode()


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
        with suppress(OSError):
            os.write(2, (self.format(record) + "\n").encode("utf-8", "backslashreplace"))


def configure(form: str, level: str) -> None:
    """Send the log of the whole process to standard error; `form` is `json`, `text`, or `auto`: text on a terminal."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    # What no line shows need not be found out (docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = StandardError()
    handler.setFormatter(TextFormatter() if text else JSONFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # what it says below that quotes tokens and secrets


def _is_news(record: logging.LogRecord) -> bool:
    """Some complaints of the HTTP server are about what is done on purpose: exchanges are cut, and not upgraded."""
    if record.exc_info and isinstance(record.exc_info[1], CancelledError):
        return False
    message = str(record.msg)
    return not message.startswith(("ASGI callable returned without completing", "Unsupported upgrade", "No supported"))
