"""Taking records elsewhere, and holding them against others: `aibridge export` and `reconcile`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aibridge.server.commands.options import (
    CONFIG,
    DATABASE,
    JSON,
    SINCE,
    Refusal,
    examples,
    moment,
    print_json,
    storage_of,
)

if TYPE_CHECKING:
    from datetime import datetime

    from aibridge.server.export import FormatName
    from aibridge.server.reconcile import ProviderType


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "aibridge export --since 7d > week.jsonl",
        "aibridge export --since 2026-01-01 --until 2026-02-01 --format parquet --output january.parquet",
        "aibridge export verify january.jsonl",
    ),
)
@SINCE
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
@CONFIG
@DATABASE
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
    with history_of(storage_of(config, database).url) as history:
        if output is None:
            write_stream(sys.stdout.buffer, history, wanted)
            return
        exporting = Export(output, wanted)
        if exporting.resumed:
            click.echo(f"Going on after {exporting.resumed:,} exchanges that were written before.", err=True)
        click.echo(f"{exporting.run(history):,} exchanges are in {output}.", err=True)


@export.command(
    epilog=examples(
        "aibridge export verify january.jsonl",
        "aibridge export verify /var/lib/aibridge/audit/*.jsonl",
    )
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--head", metavar="HASH", help="The hash that the last line must have.")
@JSON
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
        print_json({"chains": verdicts})
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


@click.command(
    epilog=examples(
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
@JSON
@CONFIG
@DATABASE
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
        with source_of(storage_of(config, database).url) as source:
            found = compare(source, provider, report, tolerance=tolerance, byok=byok, provider_name=name)
    except ReportError as fault:
        raise Refusal(str(fault)) from fault
    if as_json:
        print_json(found)
    else:
        from aibridge.server.report_text import print_reconciliation

        print_reconciliation(found)
    ctx.exit(1 if found.beyond else 0)
