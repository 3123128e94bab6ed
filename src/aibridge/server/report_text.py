"""Reports as people read them: tables on a terminal, plain columns where the output goes elsewhere.

What was recorded comes from clients and models, so nothing of it reaches a terminal but printable characters.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from aibridge.server.reports import Fact, Session, Shown, Usage, Used


def print_sessions(sessions: list[Session]) -> None:
    """Print a line for each session."""
    if not sessions:
        click.echo("No sessions are recorded, or none that fits.")
        return
    table = _table("session", "client", "actor", "started", "last")
    for name in ("requests", "turns", "prompts", "tools", "in", "out", "cache read", "cache write"):
        table.add_column(name, justify="right")
    table.add_column("first prompt")
    for each in sessions:
        counts = (each.interceptions, each.turns, each.prompts, each.tool_calls, *_tokens(each))
        times = (_time(each.started_at), _time(each.last_at))
        _add_row(table, each.session, each.client, each.initiator_id, *times, *counts, each.first_prompt or "")
    _print(table)


def print_usage(usage: Usage) -> None:
    """Print a line for each key, and the total."""
    table = _table(usage.by)
    for name in ("requests", "failed", "cancelled", "in", "out", "cache read", "cache write", "cache hits"):
        table.add_column(name, justify="right")
    for used in (*usage.rows, usage.total):
        if used is usage.total:
            table.add_section()
        counts = (used.interceptions, used.failed, used.cancelled, *_tokens(used))
        share = "-" if used.cache_hit_share is None else f"{used.cache_hit_share:.0%}"
        _add_row(table, "total" if used.key is None else used.key, *counts, share)
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
            error = f"\nfailed: {details['invocation_error']}" if details["invocation_error"] else ""
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


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _add_row(table: Table, *cells: str | int) -> None:
    table.add_row(*(Text(_printable(cell) if isinstance(cell, str) else f"{cell:,}") for cell in cells))


def _print(table: Table) -> None:
    if sys.stdout.isatty():
        Console().print(table)
        return
    console = Console(width=10_000)  # a pipe has no edge at which to fold
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
