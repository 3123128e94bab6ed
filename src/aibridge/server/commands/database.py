"""Looking after the database: `aibridge db`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aibridge.server.commands.options import (
    CONFIG,
    DATABASE,
    JSON,
    Refusal,
    examples,
    moment,
    print_json,
    storage_of,
)

if TYPE_CHECKING:
    from datetime import datetime

    from aibridge.recording.retention import Limits


@click.group(epilog=examples("aibridge db prune --dry-run"))
def db() -> None:
    """Look after the database."""


@db.command(epilog=examples("aibridge db status", "aibridge db status --database postgresql://user@host/records"))
@JSON
@CONFIG
@DATABASE
@click.pass_context
def status(ctx: click.Context, as_json: bool, config: Path | None, database: str | None) -> None:
    """Say which schema the database has.

    Exit status 0 means that this version of aibridge can work with it as it is, 1 that it can not.
    """
    from aibridge.recording.databases import schema_of

    schema = schema_of(storage_of(config, database).url)
    if as_json:
        print_json({"found": schema.found, "needed": schema.needed, "state": schema.state})
    else:
        told = {
            "empty": f"The database has no schema yet; this aibridge makes {schema.needed} with the first start.",
            "old": f"The database has schema {schema.found}, this aibridge needs {schema.needed}: "
            "run `aibridge db upgrade`.",
            "current": f"The database has schema {schema.found}, which this aibridge needs.",
            "newer": f"The database has schema {schema.found}, this aibridge knows {schema.needed}: upgrade aibridge.",
        }
        click.echo(told[schema.state])
    ctx.exit(schema.state in {"old", "newer"})


@db.command(epilog=examples("aibridge db upgrade", "aibridge db upgrade --sql > upgrade.sql"))
@click.option("--sql", is_flag=True, help="Print the SQL instead of running it; it is meant for one transaction.")
@CONFIG
@DATABASE
def upgrade(sql: bool, config: Path | None, database: str | None) -> None:
    """Bring the schema of the database up to date.

    A gateway makes the schema of an empty database by itself, and upgrades SQLite. With a PostgreSQL database of an
    older version it does not start, for other gateways may be working with that.
    """
    from aibridge.recording.databases import script
    from aibridge.recording.databases import upgrade as upgrade_database

    url = storage_of(config, database).url
    if sql:
        click.echo(script(url), nl=False)
        return
    before = upgrade_database(url)
    if before.found == before.needed:
        click.echo(f"The database has schema {before.needed} already.")
    else:
        click.echo(f"The database has schema {before.needed} now{f', {before.found} before' if before.found else ''}.")


@db.command("rebuild-rollups", epilog=examples("aibridge db rebuild-rollups"))
@CONFIG
@DATABASE
def rebuild_rollups(config: Path | None, database: str | None) -> None:
    """Make the sums by hour and day, which `aibridge usage` reads, anew from the records.

    They are kept right with every record, so there is no need to, unless records were changed or removed by hand.
    """
    from aibridge.recording.databases import rebuild_rollups as rebuild

    rebuild(storage_of(config, database).url)
    click.echo("The sums are those of the records.")


@db.command(
    epilog=examples(
        "aibridge db prune --dry-run",
        "aibridge db prune --contents-before 30d --figures-before 2025-01-01",
    )
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--contents-before",
    metavar="TIME",
    type=moment,
    help="Remove contents of this age, instead of that of the settings.",
)
@click.option(
    "--figures-before", metavar="TIME", type=moment, help="The same for figures, with all that belongs to them."
)
@JSON
@CONFIG
@DATABASE
def prune(
    dry_run: bool,
    contents_before: datetime | None,
    figures_before: datetime | None,
    as_json: bool,
    config: Path | None,
    database: str | None,
) -> None:
    """Remove what has had its time.

    Contents are prompts, tool arguments, thoughts and the texts of errors; figures are all that is recorded. Without a
    time for either, retention.contents and retention.figures of the settings hold. TIME is a date, or how long ago.
    """
    from aibridge.server.pruning import pruned

    removals = pruned(
        storage_of(config, database).url, _limits(config, contents_before, figures_before), dry_run=dry_run
    )
    if as_json:
        print_json({"dry_run": dry_run, "removed": removals})
    else:
        from aibridge.server.report_text import print_removals

        print_removals(removals, dry_run=dry_run)


def _limits(config: Path | None, contents: datetime | None, figures: datetime | None) -> Limits:
    """From when on contents and figures are kept: as said on the command line, else as the settings say."""
    from datetime import UTC, datetime

    from aibridge.recording.retention import Limits, limits
    from aibridge.server.loading import load_section
    from aibridge.server.settings import Retention

    if contents is None and figures is None:
        retention = load_section(Retention, config, os.environ)
        found = limits(datetime.now(UTC), retention.contents, retention.figures)
    else:
        found = Limits(contents, figures)
    if found == (None, None):
        raise Refusal(
            "everything is kept for ever: say --contents-before or --figures-before, or set retention.contents or "
            "retention.figures"
        )
    return found
