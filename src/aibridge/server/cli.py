"""The command line of `aibridge`.

Only click is imported here: a command brings in what it needs when it runs, so that `--help` is instant and a worker
that is started anew loads nothing but the server.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from aibridge.server.commands.database import db
from aibridge.server.commands.exports import export, reconcile
from aibridge.server.commands.journal import journal
from aibridge.server.commands.options import CONFIG, Commands, examples
from aibridge.server.commands.records import sessions, show, usage


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("aibridge demo", "ANTHROPIC_API_KEY=... aibridge serve", "aibridge sessions"),
)
@click.version_option(package_name="aibridge", message="%(package)s %(version)s")
def main() -> None:
    """The gateway between coding agents and AI providers.

    It relays every exchange as it is, and records who asked what, which tools were called and how many tokens were
    used.
    """


@main.command(
    epilog=examples(
        "ANTHROPIC_API_KEY=... aibridge serve",
        "aibridge serve --config aibridge.toml --host 0.0.0.0 --workers 4",
        "AIBRIDGE_STORAGE_URL=sqlite:////var/lib/aibridge/records.db aibridge serve",
    )
)
@CONFIG
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
    epilog=examples(
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
    epilog=examples(
        "aibridge check --config aibridge.toml",
    )
)
@CONFIG
@click.pass_context
def check(ctx: click.Context, config: Path | None) -> None:
    """Check the settings without starting the gateway.

    Exit status 0 means that it could start with them. No secret is shown.
    """
    from aibridge.server.loading import load

    settings = load(config, os.environ)
    from aibridge.server.check import check as check_settings

    ctx.exit(check_settings(settings))


for command in (sessions, show, usage, export, reconcile, db, journal):
    main.add_command(command)
