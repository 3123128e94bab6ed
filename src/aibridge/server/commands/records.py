"""Reading what was recorded: `aibridge sessions`, `show` and `usage`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aibridge.server.commands.options import (
    CONFIG,
    DATABASE,
    JSON,
    SINCE,
    examples,
    moment,
    print_json,
    records_of,
)

if TYPE_CHECKING:
    from datetime import datetime

    from aibridge.server.reports import By


@click.command(
    epilog=examples(
        "aibridge sessions",
        "aibridge sessions --since 7d --user ada --limit 50",
        "aibridge sessions --json --database sqlite:////var/lib/aibridge/records.db",
    )
)
@SINCE
@click.option("--user", metavar="ID", help="Only those of this actor.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The number of sessions.")
@JSON
@CONFIG
@DATABASE
def sessions(
    since: datetime | None, user: str | None, limit: int, as_json: bool, config: Path | None, database: str | None
) -> None:
    """List what was done, session by session, the latest first.

    A session is what the client calls one; requests without one are taken together by the thread of tool calls and
    answers that they make. Times are UTC.
    """
    with records_of(config, database) as records:
        found = records.sessions(since=since, user=user, limit=limit)
    if as_json:
        print_json({"sessions": found})
    else:
        from aibridge.server.report_text import print_sessions

        print_sessions(found)


@click.command(
    epilog=examples(
        "aibridge show 01980c5e",
        "aibridge show 01980c5e --json",
    )
)
@click.argument("wanted", metavar="ID")
@JSON
@CONFIG
@DATABASE
def show(wanted: str, as_json: bool, config: Path | None, database: str | None) -> None:
    """Show all that was recorded of a session, thread or interception.

    What happened is told in order of time. ID is that of a session or an interception, or as much of its beginning
    as is not also that of another. The id of an interception is in the X-AIBridge-Interception-Id header of its
    answer; that of a thread's first one shows the whole thread.
    """
    with records_of(config, database) as records:
        found = records.show(wanted)
    if as_json:
        print_json({"interceptions": found})
    else:
        from aibridge.server.report_text import print_shown

        print_shown(found)


@click.command(
    epilog=examples(
        "aibridge usage",
        "aibridge usage --by model --since 30d",
        "aibridge usage --by day --since 2026-01-01 --until 2026-02-01 --json",
    )
)
@click.option(
    "--by",
    type=click.Choice(["user", "model", "client", "day", "provider", "session"]),
    default="user",
    show_default=True,
    help="What to sum up by. Days are UTC.",
)
@SINCE
@click.option("--until", metavar="TIME", type=moment, help="Before this time.")
@JSON
@CONFIG
@DATABASE
def usage(
    by: By, since: datetime | None, until: datetime | None, as_json: bool, config: Path | None, database: str | None
) -> None:
    """Sum up requests and tokens by user, model, day, and more.

    "in" is input that was neither read from nor written to the provider's cache; "cache hits" is the share of all
    input that was read from it.
    """
    with records_of(config, database) as records:
        found = records.usage(by, since=since, until=until)
    if as_json:
        print_json(found)
    else:
        from aibridge.server.report_text import print_usage

        print_usage(found)
