"""Log lines for machines and for people."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime

import msgspec
import pytest

from aibridge.observe.log import InterceptionFacts, JSONFormatter, TextFormatter, tell


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
"""


@pytest.mark.parametrize("form", ["json", "auto", "text"])
def test_the_log_goes_to_standard_error(form: str) -> None:
    """Where that is no terminal, `auto` is JSON."""
    command = [sys.executable, "-c", _CONFIGURED.format(form=form)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert (json.loads(line)["message"] if form != "text" else line[-8:]) == "so it is"


TOLD = InterceptionFacts(
    interception_id="018f6f2e-7b1c-7a52-9d0e-5f3f6a1f2b3c",
    actor="ada",
    client="Claude Code",
    session=None,
    provider="anthropic",
    route="/v1/messages",
    model='a "model"\n',
    streaming=True,
    status="failed",
    http_status=502,
    error_type="upstream",
    retries=2,
    input_tokens=23,
    output_tokens=41,
    cache_read_input_tokens=7,
    cache_write_input_tokens=5,
    duration_ms=12.3,
    overhead_ms=0.42,
)


def test_a_host_gets_the_line_of_an_interception_as_a_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tell(TOLD, datetime.now(UTC))
    [made] = caplog.records
    assert (made.name, made.levelname, made.getMessage()) == ("aibridge.interceptions", "INFO", "interception failed")
    assert vars(made)["facts"] == msgspec.structs.asdict(TOLD)


_TELLING = """
import asyncio, logging, sys
from datetime import UTC, datetime
import msgspec
from aibridge.observe import log

async def main():
    told = msgspec.json.decode(sys.argv[1], type=log.InterceptionFacts)
    log.tell(told, datetime.now(UTC))
    log.tell(told, datetime.now(UTC))
    logging.getLogger("aibridge.server").info("between")
    log.tell(told, datetime.now(UTC))

log.configure("json", "info")
asyncio.run(main())
"""


def test_the_gateway_writes_that_line_without_a_record_but_not_otherwise() -> None:
    """What waits is written before what does not, and at the end of the process."""
    command = [sys.executable, "-c", _TELLING, msgspec.json.encode(TOLD).decode()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == ["interception failed"] * 2 + ["between", "interception failed"]
    assert [*lines] == sorted(lines, key=lambda line: line["time"])
    by_record = json.loads(JSONFormatter().format(record(facts=msgspec.structs.asdict(TOLD))))
    assert [*lines[0]] == [*by_record]
    assert {**lines[0], "time": None} == {**by_record, "message": "interception failed", "time": None}
