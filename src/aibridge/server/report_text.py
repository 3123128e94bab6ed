"""Reports as people read them: fitted to a terminal, plain columns of full figures where the output goes elsewhere.

What was recorded comes from clients and models, so nothing of it reaches a terminal but printable characters.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aibridge.recording.inspection import Inspected
    from aibridge.recording.replay import Replayed
    from aibridge.recording.retention import Removal
    from aibridge.server.reconcile import Reconciliation
    from aibridge.server.reports import Fact, Session, Shown, Usage, Used


def print_sessions(sessions: list[Session]) -> None:
    """Print each session: as a few lines on a terminal, whose width no table of them fits, else as one."""
    if not sessions:
        click.echo("No sessions are recorded, or none that fits.")
    elif sys.stdout.isatty():
        for session in sessions:
            _print_session(session)
    else:
        _print_table_of(sessions)


def _print_session(session: Session) -> None:
    counts = {
        "request": session.interceptions,
        "turn": session.turns,
        "prompt": session.prompts,
        "tool call": session.tool_calls,
    }
    sums = zip(("in", "out", "cache read", "cache write"), _tokens(session), strict=True)
    who = f"{session.initiator_id} with {session.client}"
    click.echo(f"{click.style(_printable(session.session), bold=True)}  {_printable(who)}")
    click.echo(f"  {_time(session.started_at)} to {_time(session.last_at)}")
    click.echo("  " + ", ".join(f"{number:,} {name}{'' if number == 1 else 's'}" for name, number in counts.items()))
    click.echo(f"  tokens: {', '.join(f'{name} {number:,}' for name, number in sums)}")
    if session.first_prompt:
        click.secho(f"  {_printable(session.first_prompt)}", fg="cyan")
    click.echo()


def _print_table_of(sessions: list[Session]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("session", "client", "actor", "started", "last"):
        table.add_column(name)
    for name in ("requests", "turns", "prompts", "tools", "in", "out", "cache read", "cache write"):
        table.add_column(name, justify="right")
    table.add_column("first prompt")
    for each in sessions:
        counts = (each.interceptions, each.turns, each.prompts, each.tool_calls, *_tokens(each))
        about = (each.session, each.client, each.initiator_id, _time(each.started_at), _time(each.last_at))
        table.add_row(*map(_cell, (*about, *map(_figure, counts), each.first_prompt or "")))
    _print(table)


def print_usage(usage: Usage) -> None:
    """Print a line for each key, and the total."""
    between = "\n" if sys.stdout.isatty() else " "
    table = Table(box=None, pad_edge=False, collapse_padding=sys.stdout.isatty())
    table.add_column(usage.by, overflow="fold", min_width=10)
    for name in ("requests", "failed", "cancelled", "in", "out"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("read", "write", "hits"):
        table.add_column(f"cache{between}{name}", justify="right", no_wrap=True)
    for used in (*usage.rows, usage.total):
        counts = (used.interceptions, used.failed, used.cancelled, *_tokens(used))
        share = "-" if used.cache_hit_share is None else f"{used.cache_hit_share:.0%}"
        key = "total" if used.key is None else used.key
        table.add_row(*map(_cell, (key, *map(_figure, counts), share)), style="bold" if used is usage.total else "")
    _print(table)


def print_shown(shown: list[Shown]) -> None:
    """Print everything about each interception, in order of time."""
    for number, each in enumerate(shown):
        if number:
            click.echo()
        _print_interception(each)


def _print_interception(shown: Shown) -> None:
    kept = shown.interception
    click.secho(f"interception {_printable(kept['id'])}", bold=True)
    agent = f" ({kept['user_agent']})" if kept["user_agent"] else ""
    streaming = "streaming" if kept["streaming"] else "not streaming"
    about = {
        "actor": kept["initiator_id"],
        "client": f"{kept['client']}{agent}",
        "session": kept["client_session_id"],
        "thread": kept["thread_root_id"] and f"{kept['thread_root_id']}, follows {kept['thread_parent_id']}",
        "provider": f"{kept['provider_name']} ({kept['provider']}) {kept['route']}, {streaming}",
        "model": kept["model"],
        "credential": f"{kept['credential_kind']} {kept['credential_hint']}",
        "metadata": ", ".join(f"{name}: {value}" for name, value in kept["metadata"].items()),
    }
    for name, value in about.items():
        if value:
            click.echo(f"  {name:<10} {_printable(value)}")
    _print_event(kept["started_at"], "started", "")
    for fact in shown.facts:
        _print_event(fact.created_at, fact.kind.replace("_", " "), _told(fact))
    if kept["ended_at"] is None:
        click.echo("  no end of it is recorded: it is still going on, or its gateway was stopped before")
    else:
        status = f"status {kept['http_status']}" if kept["http_status"] else "no answer was begun"
        error = ": ".join(filter(None, [kept["error_type"], kept["error_message"]]))
        _print_event(kept["ended_at"], kept["status"], f"{status}{', ' if error else ''}{error}")


def print_removals(removals: list[Removal], *, dry_run: bool) -> None:
    """Print what was removed, or would be, and about how much room that gives back."""
    if not removals:
        click.echo("Nothing has had its time.")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("table")
    table.add_column("would be removed" if dry_run else "removed")
    for name in ("rows", "bytes"):
        table.add_column(name, justify="right")
    for each in removals:
        table.add_row(*map(_cell, (each.table, each.of, _figure(each.rows), _figure(each.bytes))))
    table.add_row("total", "", "", _figure(sum(each.bytes for each in removals)), style="bold")
    _print(table)


def print_inspected(files: list[Inspected]) -> None:
    """Print what each file of a journal holds."""
    if not files:
        click.echo("There is no file of a journal: what was recorded is stored.")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("bytes", justify="right")
    for name in ("owner", "from", "to", "entries", "damage"):
        table.add_column(name)
    for each in files:
        kinds = ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in sorted(each.entries.items()))
        times = ("" if time is None else _time(time.isoformat()) for time in (each.first, each.last))
        owner = "alive" if each.owned else "none"
        table.add_row(*map(_cell, (each.file, _figure(each.size), owner, *times, kinds or "none", _damage(each))))
    _print(table)


def print_lines(texts: Iterable[str]) -> None:
    """Print texts, each on a line of its own; to a program just as they are."""
    for text in texts:
        click.echo(_printable(text) if sys.stdout.isatty() else text)


def print_verified(files: list[Inspected]) -> None:
    """Print whether each file of a journal is whole."""
    if not files:
        click.echo("There is no file of a journal to check.")
    for each in files:
        entries = sum(each.entries.values())
        click.echo(_printable("; ".join(filter(None, [f"{each.file}: {entries:,} entries are whole", _damage(each)]))))


def _damage(file: Inspected | Replayed) -> str:
    if file.problem:
        return file.problem
    unfinished = "being written" if file.owned else "of an entry that was never finished"
    return ", ".join(
        [f"{file.damaged:,} damaged"] * bool(file.damaged)
        + [f"{file.unfinished:,} bytes {unfinished}"] * bool(file.unfinished)
    )


def print_replayed(files: list[Replayed]) -> None:
    """Print what of each file of a journal is stored now."""
    if not files:
        click.echo("There is no file of a journal to store.")
    for each in files:
        if each.owned:
            click.echo(_printable(f"{each.file}: left to the living process that owns it"))
        else:
            stored = f"{each.file}: {each.stored:,} entries are stored"
            click.echo(_printable("; ".join(filter(None, [stored, _damage(each)]))))


def print_reconciliation(found: Reconciliation) -> None:
    """Print a line for each count of a model on a day, those that drift too far in bold."""
    table = Table(box=None, pad_edge=False)
    for name in ("day", "model", "tokens"):
        table.add_column(name)
    for name in ("recorded", found.provider, "drift", "%"):
        table.add_column(name, justify="right")
    for row in found.rows:
        figures = (f"{row.ours:,}", f"{row.theirs:,}", f"{row.drift:+,}" if row.drift else "0", f"{row.share:.2f}")
        about = (row.day, row.model, row.count.removesuffix("_tokens").replace("_", " "))
        table.add_row(*map(_cell, (*about, *figures)), style="bold" if row.share > found.tolerance else "")
    _print(table)
    beyond = f"{found.beyond} of {len(found.rows)} counts drift by more than {found.tolerance:g} %"
    click.echo(f"{found.since:%Y-%m-%d %H:%M} to {found.until:%Y-%m-%d %H:%M} UTC: {beyond}.")


def _told(fact: Fact) -> str:
    details = fact.details
    metadata: dict[str, Any] = details["metadata"]
    match fact.kind:
        case "prompt":
            return str(details["prompt"])
        case "thought":
            source = metadata.get("source")
            return f"({source}) {details['content']}" if source else str(details["content"])
        case "tool_call":
            where = f" at {details['server_url']}" if details["server_url"] else ""
            by = f" (run by the gateway{where})" if details["injected"] else ""
            why = details["invocation_error"]  # empty where contents are not kept
            error = "" if why is None else f"\nfailed: {why}" if why else "\nfailed"
            return f"{details['tool']}{by} {details['input']}{error}"
        case "token_usage":
            named = ("input", "output", "cache_read_input", "cache_write_input")
            counts = [f"{name.removesuffix('_input').replace('_', ' ')} {details[f'{name}_tokens']}" for name in named]
            return ", ".join(counts + [f"{name} {value}" for name, value in metadata.items()])


def _print_event(time: str, kind: str, told: str) -> None:
    indented = _printable(told).replace("\n", f"\n{' ' * 28}")
    click.echo(f"  {time[11:23]}{click.style(f'{kind:>12}', fg='cyan')}  {indented}".rstrip())


def _tokens(sums: Session | Used) -> tuple[int, int, int, int]:
    return sums.input_tokens, sums.output_tokens, sums.cache_read_input_tokens, sums.cache_write_input_tokens


def _time(instant: str) -> str:
    return instant[:19].replace("T", " ")


def _printable(text: object) -> str:
    """The text with control characters made visible, so that none can command the terminal."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape", "surrogatepass").decode()
        for each in str(text).replace("\t", "    ")
    )


def _figure(count: int) -> str:
    """The count, whole but for millions on a terminal."""
    return f"{count / 1e6:,.1f}M" if count >= 1e6 and sys.stdout.isatty() else f"{count:,}"


def _cell(text: str) -> Text:
    return Text(_printable(text))


def _print(table: Table) -> None:
    if sys.stdout.isatty():
        Console().print(table)
        return
    console = Console(width=10_000)  # a pipe has no edge at which to fold
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
