"""Log lines for machines and for people."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime

import pytest

from aibridge.observe.log import JSONFormatter, TextFormatter


def record(
    message: str = "interception %s", *args: object, facts: dict[str, object] | None = None
) -> logging.LogRecord:
    made = logging.LogRecord("aibridge.interceptions", logging.INFO, "", 0, message, args or ("completed",), None)
    if facts is not None:
        made.facts = facts
    return made


def test_a_line_of_json_holds_the_facts_beside_the_message() -> None:
    line = JSONFormatter().format(record(facts={"model": "m", "retries": 0}))
    told = json.loads(line)
    assert datetime.fromisoformat(told.pop("time")).utcoffset() is not None
    assert told == {
        "level": "info",
        "logger": "aibridge.interceptions",
        "message": "interception completed",
        "model": "m",
        "retries": 0,
    }


def test_nothing_that_a_client_says_can_begin_a_line_of_its_own() -> None:
    line = JSONFormatter().format(record(facts={"model": 'm\n{"level": "error"}\r'}))
    assert "\n" not in line
    assert "\r" not in line


def test_an_exception_stands_in_its_line() -> None:
    made = record()
    try:
        raise ZeroDivisionError("so it is")
    except ZeroDivisionError:
        made.exc_info = sys.exc_info()
    told = json.loads(JSONFormatter().format(made))
    assert told["exception"].endswith("ZeroDivisionError: so it is")


def test_a_line_of_text_is_for_people() -> None:
    line = TextFormatter().format(record(facts={"model": "m", "error_type": None}))
    assert line.endswith("INFO    interception completed model=m")


_CONFIGURED = """
import logging
from aibridge.observe.log import configure
configure({form!r}, "warning")
logging.getLogger("aibridge").info("too little")
logging.getLogger("aibridge").warning("so it is")
logging.getLogger("uvicorn.error").error("ASGI callable returned without completing response.")
"""


@pytest.mark.parametrize("form", ["json", "auto", "text"])
def test_the_log_goes_to_standard_error(form: str) -> None:
    """Where that is no terminal, `auto` is JSON; what the bridge does on purpose is no news."""
    command = [sys.executable, "-c", _CONFIGURED.format(form=form)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert (json.loads(line)["message"] if form != "text" else line[-8:]) == "so it is"
