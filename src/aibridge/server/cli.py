"""The commands of `aibridge`.

Only click is imported here: a command brings in what it needs when it runs, so that `--help` is instant and a worker
that is started anew loads nothing but the server.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aibridge.errors import RecordingError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from aibridge.recording.retention import Limits
    from aibridge.server.export import FormatName
    from aibridge.server.reconcile import ProviderType
    from aibridge.server.reports import By, Records
    from aibridge.server.settings import Storage

AnyCommand = TypeVar("AnyCommand", bound="Callable[..., Any]")


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


def _examples(*commands: str) -> str:
    r"""Text for the end of a command's help; after `\b`, click keeps the lines as they are."""
    return "\n  ".join(["\b\nExamples:", *commands])


_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The file of settings (TOML). Without it, AIBRIDGE_CONFIG may name one.",
)
_database = click.option(
    "--database", metavar="URL", help="The database, such as sqlite:///aibridge.db or postgresql://user@host/records."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts, and nothing else.")
_since = click.option(
    "--since",
    metavar="TIME",
    type=moment,
    help="From this time on: 2026-01-31, 2026-01-31T09:30 (UTC), or 7d for a week ago.",
)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_examples("aibridge demo", "ANTHROPIC_API_KEY=... aibridge serve", "aibridge sessions"),
)
@click.version_option(package_name="aibridge", message="%(package)s %(version)s")
def main() -> None:
    """The gateway between coding agents and AI providers.

    It relays every exchange as it is, and records who asked what, which tools were called and how many tokens were
    used.
    """


@main.command(
    epilog=_examples(
        "ANTHROPIC_API_KEY=... aibridge serve",
        "aibridge serve --config aibridge.toml --host 0.0.0.0 --workers 4",
        "AIBRIDGE_STORAGE_URL=sqlite:////var/lib/aibridge/records.db aibridge serve",
    )
)
@_config
@click.option("--host", help="The address to listen on, instead of that of the settings.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port, instead of that of the settings.")
@click.option(
    "--workers", type=click.IntRange(1, 1024), help="The number of processes, instead of that of the settings."
)
def serve(config: Path | None, host: str | None, port: int | None, workers: int | None) -> None:
    """Start the gateway.

    Without a file of settings it listens on 127.0.0.1:8080, records in aibridge.db, and has the providers whose key
    is in the environment. Every setting can also come from the environment, as AIBRIDGE_<SECTION>_<SETTING>.
    """
    import msgspec

    from aibridge.server.loading import load

    settings = load(config, os.environ)
    from aibridge.server.serve import serve as serve_settings  # once the settings are known to be right

    given = {"host": host, "port": port, "workers": workers}
    server = msgspec.structs.replace(settings.server, **{name: it for name, it in given.items() if it is not None})
    serve_settings(msgspec.structs.replace(settings, server=server))


@main.command(
    epilog=_examples(
        "aibridge demo",
        "aibridge demo --once",
    )
)
@click.option("--once", is_flag=True, help="End after the exchanges, instead of waiting for requests of your own.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port of the gateway; any free one without this.")
@click.pass_context
def demo(ctx: click.Context, once: bool, port: int | None) -> None:
    """See the gateway at work, without a key and without a network.

    It starts a gateway with a simulated provider and a real MCP server, sends a few exchanges through it, and shows
    what was recorded.
    """
    from aibridge.server.demo import demo as run_demo

    ctx.exit(run_demo(once=once, port=port))


@main.command(
    epilog=_examples(
        "aibridge check --config aibridge.toml",
    )
)
@_config
@click.pass_context
def check(ctx: click.Context, config: Path | None) -> None:
    """Check the settings without starting the gateway.

    Exit status 0 means that it could start with them. No secret is shown.
    """
    from aibridge.server.loading import load

    settings = load(config, os.environ)
    from aibridge.server.check import check as check_settings

    ctx.exit(check_settings(settings))


@main.command(
    epilog=_examples(
        "aibridge sessions",
        "aibridge sessions --since 7d --user ada --limit 50",
        "aibridge sessions --json --database sqlite:////var/lib/aibridge/records.db",
    )
)
@_since
@click.option("--user", metavar="ID", help="Only those of this actor.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The number of sessions.")
@_json
@_config
@_database
def sessions(
    since: datetime | None, user: str | None, limit: int, as_json: bool, config: Path | None, database: str | None
) -> None:
    """List what was done, session by session, the latest first.

    A session is what the client calls one; requests without one are taken together by the thread of tool calls and
    answers that they make. Times are UTC.
    """
    with _records(config, database) as records:
        found = records.sessions(since=since, user=user, limit=limit)
    if as_json:
        _print_json({"sessions": found})
    else:
        from aibridge.server.report_text import print_sessions

        print_sessions(found)


@main.command(
    epilog=_examples(
        "aibridge show 01980c5e",
        "aibridge show 01980c5e --json",
    )
)
@click.argument("wanted", metavar="ID")
@_json
@_config
@_database
def show(wanted: str, as_json: bool, config: Path | None, database: str | None) -> None:
    """Show all that was recorded of a session, thread or interception.

    What happened is told in order of time. ID is that of a session or an interception, or as much of its beginning
    as is not also that of another. The id of an interception is in the X-AIBridge-Interception-Id header of its
    answer; that of a thread's first one shows the whole thread.
    """
    with _records(config, database) as records:
        found = records.show(wanted)
    if as_json:
        _print_json({"interceptions": found})
    else:
        from aibridge.server.report_text import print_shown

        print_shown(found)


@main.command(
    epilog=_examples(
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
@_since
@click.option("--until", metavar="TIME", type=moment, help="Before this time.")
@_json
@_config
@_database
def usage(
    by: By, since: datetime | None, until: datetime | None, as_json: bool, config: Path | None, database: str | None
) -> None:
    """Sum up requests and tokens by user, model, day, and more.

    "in" is input that was neither read from nor written to the provider's cache; "cache hits" is the share of all
    input that was read from it.
    """
    with _records(config, database) as records:
        found = records.usage(by, since=since, until=until)
    if as_json:
        _print_json(found)
    else:
        from aibridge.server.report_text import print_usage

        print_usage(found)


@main.group(
    invoke_without_command=True,
    epilog=_examples(
        "aibridge export --since 7d > week.jsonl",
        "aibridge export --since 2026-01-01 --until 2026-02-01 --format parquet --output january.parquet",
        "aibridge export verify january.jsonl",
    ),
)
@_since
@click.option("--until", metavar="TIME", type=moment, help="Before this time; before now without it.")
@click.option(
    "--format", "format_name", type=click.Choice(["jsonl", "csv", "parquet"]), default="jsonl", show_default=True
)
@click.option(
    "--contents/--no-contents",
    default=True,
    show_default=True,
    help="With prompts, tool arguments, thoughts and the texts of errors, or with empty ones.",
)
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Instead of standard output."
)
@_config
@_database
@click.pass_context
def export(
    ctx: click.Context,
    since: datetime | None,
    until: datetime | None,
    format_name: FormatName,
    contents: bool,
    output: Path | None,
    config: Path | None,
    database: str | None,
) -> None:
    """Write what was recorded to a file, or check such a file.

    An exchange is a line or row: an interception with all that belongs to it. With --output, an export that was
    interrupted goes on where it stopped when the same command is run again.
    """
    if ctx.invoked_subcommand:
        return
    from datetime import UTC, datetime

    from aibridge.recording.history import history_of
    from aibridge.server.export import Export, Wanted, write_stream

    wanted = Wanted(format=format_name, contents=contents, since=since, until=until or datetime.now(UTC))
    with history_of(_storage(config, database).url) as history:
        if output is None:
            write_stream(sys.stdout.buffer, history, wanted)
            return
        exporting = Export(output, wanted)
        if exporting.resumed:
            click.echo(f"Going on after {exporting.resumed:,} exchanges that were written before.", err=True)
        click.echo(f"{exporting.run(history):,} exchanges are in {output}.", err=True)


@export.command(
    epilog=_examples(
        "aibridge export verify january.jsonl",
        "aibridge export verify /var/lib/aibridge/audit/*.jsonl",
    )
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--head", metavar="HASH", help="The hash that the last line must have.")
@_json
@click.pass_context
def verify(ctx: click.Context, files: tuple[Path, ...], head: str | None, as_json: bool) -> None:
    """Find lines that are missing or were changed, put in or moved.

    The files are JSON lines of `aibridge export` or of the audit trail; those of one trail are read as one. Exit status
    1 means that something is wrong. Nothing but the last line's own words can be changed unseen; its hash, noted
    elsewhere and given with --head, vouches for these as well.
    """
    from aibridge.recording.chain import verify as verify_files

    verdicts = verify_files(files)
    for verdict in verdicts:
        if head and verdict.end.head != head:
            verdict.problems.append(f"the last line is not the one with the hash {head}: lines are missing after it")
    if as_json:
        _print_json({"chains": verdicts})
    else:
        for verdict in verdicts:
            for problem in verdict.problems[:100]:
                click.echo(problem)
            if more := len(verdict.problems[100:]):
                click.echo(f"and {more:,} more")
            click.echo(
                f"{'FAIL' if verdict.problems else 'ok'}: lines {verdict.first} to {verdict.end.seq}; "
                f"the last one's hash is {verdict.end.head}"
            )
    ctx.exit(1 if any(verdict.problems for verdict in verdicts) else 0)


def percent(text: str) -> float:
    """Read a share in percent, such as `0.5` or `0.5%`."""
    try:
        share = float(text.removesuffix("%"))
    except ValueError:
        share = -1.0
    if not 0 <= share < float("inf"):
        raise click.BadParameter(f"found {text!r}; allowed is a share in percent, such as 0.5")
    return share


@main.command(
    epilog=_examples(
        "aibridge reconcile --provider anthropic --file report.json",
        "aibridge reconcile --provider openai --file page1.json --file page2.json --tolerance 0.5 --json",
    )
)
@click.option("--provider", type=click.Choice(["anthropic", "openai"]), required=True, help="Whose report it is.")
@click.option(
    "--file",
    "files",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="What the provider's usage API answers, by day and model; one file for each page, or one with all.",
)
@click.option("--name", metavar="NAME", help="Only the provider of this name, of several of the type.")
@click.option("--byok", is_flag=True, help="Count exchanges with clients' own keys as well.")
@click.option(
    "--tolerance", metavar="PERCENT", type=percent, default="0", show_default=True, help="How much drift is none."
)
@_json
@_config
@_database
@click.pass_context
def reconcile(
    ctx: click.Context,
    provider: ProviderType,
    files: tuple[Path, ...],
    name: str | None,
    byok: bool,
    tolerance: float,
    as_json: bool,
    config: Path | None,
    database: str | None,
) -> None:
    """Compare what was recorded with a provider's own usage report.

    By day (UTC) and model, for the days that the report covers. Models are compared without the date of their version.
    Exit status 1 means that a count drifts by more than the tolerance.
    """
    from aibridge.server.reconcile import read_report
    from aibridge.server.reconcile import reconcile as compare
    from aibridge.server.report_sources import ReportError, source_of

    try:
        report = read_report(provider, files)
        with source_of(_storage(config, database).url) as source:
            found = compare(source, provider, report, tolerance=tolerance, byok=byok, provider_name=name)
    except ReportError as fault:
        raise Refusal(str(fault)) from fault
    if as_json:
        _print_json(found)
    else:
        from aibridge.server.report_text import print_reconciliation

        print_reconciliation(found)
    ctx.exit(1 if found.beyond else 0)


@main.group(epilog=_examples("aibridge db prune --dry-run"))
def db() -> None:
    """Look after the database."""


@db.command(epilog=_examples("aibridge db status", "aibridge db status --database postgresql://user@host/records"))
@_json
@_config
@_database
@click.pass_context
def status(ctx: click.Context, as_json: bool, config: Path | None, database: str | None) -> None:
    """Say which schema the database has.

    Exit status 0 means that this version of aibridge can work with it as it is, 1 that it can not.
    """
    from aibridge.recording.databases import schema_of

    schema = schema_of(_storage(config, database).url)
    if as_json:
        _print_json({"found": schema.found, "needed": schema.needed, "state": schema.state})
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


@db.command(epilog=_examples("aibridge db upgrade", "aibridge db upgrade --sql > upgrade.sql"))
@click.option("--sql", is_flag=True, help="Print the SQL instead of running it; it is meant for one transaction.")
@_config
@_database
def upgrade(sql: bool, config: Path | None, database: str | None) -> None:
    """Bring the schema of the database up to date.

    A gateway makes the schema of an empty database by itself, and upgrades SQLite. With a PostgreSQL database of an
    older version it does not start, for other gateways may be working with that.
    """
    from aibridge.recording.databases import script
    from aibridge.recording.databases import upgrade as upgrade_database

    url = _storage(config, database).url
    if sql:
        click.echo(script(url), nl=False)
        return
    before = upgrade_database(url)
    if before.found == before.needed:
        click.echo(f"The database has schema {before.needed} already.")
    else:
        click.echo(f"The database has schema {before.needed} now{f', {before.found} before' if before.found else ''}.")


@db.command("rebuild-rollups", epilog=_examples("aibridge db rebuild-rollups"))
@_config
@_database
def rebuild_rollups(config: Path | None, database: str | None) -> None:
    """Make the sums by hour and day, which `aibridge usage` reads, anew from the records.

    They are kept right with every record, so there is no need to, unless records were changed or removed by hand.
    """
    from aibridge.recording.databases import rebuild_rollups as rebuild

    rebuild(_storage(config, database).url)
    click.echo("The sums are those of the records.")


@db.command(
    epilog=_examples(
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
@_json
@_config
@_database
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

    removals = pruned(_storage(config, database).url, _limits(config, contents_before, figures_before), dry_run=dry_run)
    if as_json:
        _print_json({"dry_run": dry_run, "removed": removals})
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


@main.group(
    epilog=_examples(
        "aibridge journal inspect",
        "aibridge journal verify /backup/journal",
        "aibridge journal replay aibridge-journal/1764192000000-7-1.damaged",
    )
)
def journal() -> None:
    """See, check and store what the files of the journal hold.

    A gateway stores what is in its journal by itself. These commands are for files that it set aside as damaged, for
    those of another machine, and for whoever wants to know. They are safe beside a running gateway, and change no file.
    """


_places = click.argument("places", nargs=-1, metavar="[FILE OR FOLDER]...", type=click.Path(path_type=Path))


@journal.command(
    "inspect", epilog=_examples("aibridge journal inspect", "aibridge journal inspect --contents backup/*.damaged")
)
@_places
@click.option("--contents", is_flag=True, help="Print the records themselves, prompts included: one JSON text a line.")
@_json
@_config
def inspect_journal(places: tuple[Path, ...], contents: bool, as_json: bool, config: Path | None) -> None:
    """List files with what they hold; those of storage.journal_dir where none is named.

    Told are their entries by kind, the times that these name, whether a living process owns the file, and what is
    damaged. Times are UTC.
    """
    from aibridge.server import journals
    from aibridge.server.report_text import print_inspected, print_lines

    files = journals.files(places, _storage(config, None))
    if contents:
        print_lines(journals.contents(files))
    elif as_json:
        _print_json({"files": journals.inspected(files)})
    else:
        print_inspected(journals.inspected(files))


@journal.command(
    "verify", epilog=_examples("aibridge journal verify", "aibridge journal verify /backup/journal && echo whole")
)
@_places
@_json
@_config
@click.pass_context
def verify_journal(ctx: click.Context, places: tuple[Path, ...], as_json: bool, config: Path | None) -> None:
    """Check every entry against its checksum.

    Exit status 0 means that all are whole, 1 that something is damaged or was never finished. The entry that a living
    process is just writing is no damage.
    """
    from aibridge.server import journals

    found = journals.inspected(journals.files(places, _storage(config, None)))
    if as_json:
        _print_json({"files": found})
    else:
        from aibridge.server.report_text import print_verified

        print_verified(found)
    ctx.exit(not all(each.is_whole for each in found))


@journal.command(
    "replay",
    epilog=_examples(
        "aibridge journal replay aibridge-journal/*.damaged",
        "aibridge journal replay /backup/journal --database sqlite:////var/lib/aibridge/records.db",
    ),
)
@_places
@_json
@_config
@_database
@click.pass_context
def replay_journal(
    ctx: click.Context, places: tuple[Path, ...], as_json: bool, config: Path | None, database: str | None
) -> None:
    """Store what files hold, those of storage.journal_dir where none is named.

    What is stored already stays as it is, so a file can be replayed again. Files of living processes are left to them.
    Exit status 1 means that something in a file could not be read or stored.
    """
    from aibridge.server import journals
    from aibridge.server.loading import load_section
    from aibridge.server.settings import Audit

    storage, audit = _storage(config, database), load_section(Audit, config, os.environ)
    replayed = journals.replayed(journals.files(places, storage), storage, audit)
    if as_json:
        _print_json({"files": replayed})
    else:
        from aibridge.server.report_text import print_replayed

        print_replayed(replayed)
    ctx.exit(any(each.problem or each.damaged or each.unfinished for each in replayed))


def _storage(config: Path | None, database: str | None) -> Storage:
    """The settings of the store, with the database that the command line names."""
    from aibridge.server.loading import load_section
    from aibridge.server.settings import Storage

    environ = dict(os.environ)
    if database is not None:
        environ["AIBRIDGE_STORAGE_URL"] = database
    return load_section(Storage, config, environ)


@contextmanager
def _records(config: Path | None, database: str | None) -> Iterator[Records]:
    from aibridge.server.report_sources import ReportError
    from aibridge.server.reports import reading

    try:
        with reading(_storage(config, database).url) as records:
            yield records
    except ReportError as fault:
        raise Refusal(str(fault)) from fault


def _print_json(report: object) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
