"""Looking into the journal: `aibridge journal`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aibridge.server.commands.options import (
    CONFIG,
    DATABASE,
    JSON,
    examples,
    print_json,
    storage_of,
)

if TYPE_CHECKING:
    pass


@click.group(
    epilog=examples(
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
    "inspect", epilog=examples("aibridge journal inspect", "aibridge journal inspect --contents backup/*.damaged")
)
@_places
@click.option("--contents", is_flag=True, help="Print the records themselves, prompts included: one JSON text a line.")
@JSON
@CONFIG
def inspect_journal(places: tuple[Path, ...], contents: bool, as_json: bool, config: Path | None) -> None:
    """List files with what they hold; those of storage.journal_dir where none is named.

    Told are their entries by kind, the times that these name, whether a living process owns the file, and what is
    damaged. Times are UTC.
    """
    from aibridge.server import journals
    from aibridge.server.report_text import print_inspected, print_lines

    files = journals.files(places, storage_of(config, None))
    if contents:
        print_lines(journals.contents(files))
    elif as_json:
        print_json({"files": journals.inspected(files)})
    else:
        print_inspected(journals.inspected(files))


@journal.command(
    "verify", epilog=examples("aibridge journal verify", "aibridge journal verify /backup/journal && echo whole")
)
@_places
@JSON
@CONFIG
@click.pass_context
def verify_journal(ctx: click.Context, places: tuple[Path, ...], as_json: bool, config: Path | None) -> None:
    """Check every entry against its checksum.

    Exit status 0 means that all are whole, 1 that something is damaged or was never finished. The entry that a living
    process is just writing is no damage.
    """
    from aibridge.server import journals

    found = journals.inspected(journals.files(places, storage_of(config, None)))
    if as_json:
        print_json({"files": found})
    else:
        from aibridge.server.report_text import print_verified

        print_verified(found)
    ctx.exit(not all(each.is_whole for each in found))


@journal.command(
    "replay",
    epilog=examples(
        "aibridge journal replay aibridge-journal/*.damaged",
        "aibridge journal replay /backup/journal --database sqlite:////var/lib/aibridge/records.db",
    ),
)
@_places
@JSON
@CONFIG
@DATABASE
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

    storage, audit = storage_of(config, database), load_section(Audit, config, os.environ)
    replayed = journals.replayed(journals.files(places, storage), storage, audit)
    if as_json:
        print_json({"files": replayed})
    else:
        from aibridge.server.report_text import print_replayed

        print_replayed(replayed)
    ctx.exit(any(each.problem or each.damaged or each.unfinished for each in replayed))
