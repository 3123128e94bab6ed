"""What the commands have in common: options, refusals, and reaching the records."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aibridge.errors import RecordingError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from aibridge.server.reports import Records
    from aibridge.server.settings import Storage


class Refusal(click.ClickException):
    """What was asked for can not be done; the cause and the remedy are told on standard error, without a traceback."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Write the message, each line with the program's name, as a log of several programs needs it."""
        for line in self.message.splitlines():
            click.echo(f"aibridge: {line}", err=True)


class Commands(click.Group):
    """Commands whose expected faults end with exit status 2 and a message."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (SettingsError, RecordingError) as fault:
            raise Refusal(str(fault)) from fault


def moment(text: str) -> datetime:
    """Read a date or a date and time (UTC where it names no zone), or a duration before now, such as `7d`."""
    from datetime import UTC, datetime, timedelta

    from aibridge.server.values import seconds

    try:
        time = datetime.fromisoformat(text)
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    except ValueError:
        pass
    try:
        if text.endswith(("s", "m", "h", "d")):
            return datetime.now(UTC) - timedelta(seconds=seconds(text))
    except (ValueError, OverflowError):
        pass
    raise click.BadParameter(
        f"found {text!r}; allowed is a date or time such as 2026-01-31 or 2026-01-31T09:30, "
        "or how long ago, such as 90m, 24h or 7d"
    )


def examples(*commands: str) -> str:
    r"""Text for the end of a command's help; after `\b`, click keeps the lines as they are."""
    return "\n  ".join(["\b\nExamples:", *commands])


CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The file of settings (TOML). Without it, AIBRIDGE_CONFIG may name one.",
)
DATABASE = click.option(
    "--database", metavar="URL", help="The database, such as sqlite:///aibridge.db or postgresql://user@host/records."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts, and nothing else.")
SINCE = click.option(
    "--since",
    metavar="TIME",
    type=moment,
    help="From this time on: 2026-01-31, 2026-01-31T09:30 (UTC), or 7d for a week ago.",
)


def storage_of(config: Path | None, database: str | None) -> Storage:
    """The settings of the store, with the database that the command line names."""
    from aibridge.server.loading import load_section
    from aibridge.server.settings import Storage

    environ = dict(os.environ)
    if database is not None:
        environ["AIBRIDGE_STORAGE_URL"] = database
    return load_section(Storage, config, environ)


@contextmanager
def records_of(config: Path | None, database: str | None) -> Iterator[Records]:
    """The records of that store, to be read within the block."""
    from aibridge.server.report_sources import ReportError
    from aibridge.server.reports import reading

    try:
        with reading(storage_of(config, database).url) as records:
            yield records
    except ReportError as fault:
        raise Refusal(str(fault)) from fault


def print_json(report: object) -> None:
    """Print a report for scripts."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
