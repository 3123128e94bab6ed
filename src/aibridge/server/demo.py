"""The gateway at work, for somebody who has neither a key nor, perhaps, a network.

Everything is real but the provider: the gateway, its port, its journal and its database, in a folder that is deleted
at the end, and an MCP server, a program that the gateway starts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import monotonic

import aiohttp
import uvicorn
import uvloop
from rich.console import Console
from rich.text import Text

from aibridge.errors import SettingsError
from aibridge.server import simulated_upstream
from aibridge.server.demo_exchanges import Exchange, Seen, Sender, exchanges
from aibridge.server.demo_history import hidden_calls, lines
from aibridge.server.gateway import Gateway
from aibridge.server.http1.connection import Connection
from aibridge.server.report_text import print_sessions, print_shown, print_usage
from aibridge.server.reports import Shown, reading
from aibridge.server.settings import MCPServer, Provider, Settings, Storage
from aibridge.server.values import Secret

_PAUSE = 0.01
"""Seconds between two events of the simulated upstream, so that streaming can be seen."""

_WIDTH = 100
"""Columns of what is printed, where it goes to no terminal."""

_TOOLS_WITHIN = 20.0
"""Seconds until the MCP server must have told its tools."""

_STORED_WITHIN = 10.0
"""Seconds until all that happened must be in the database."""


def demo(*, once: bool, port: int | None = None) -> int:
    """Run the demo: the exit status, 0 where everything went as it should.

    With `once` it ends after the exchanges; else the gateway goes on serving until SIGINT or SIGTERM. `port` is that
    of the gateway on 127.0.0.1; any free one where it is None. Raises `SettingsError` where the port is taken.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # the folder is deleted then, too
    provider = simulated_upstream.create(_PAUSE)
    with (
        _listening(port or 0) as listening,
        tempfile.TemporaryDirectory(prefix="aibridge-demo-") as folder,
        simulated_upstream.serve(provider) as upstream,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,  # the loop of `aibridge serve`
    ):
        return runner.run(_demo(_settings(Path(folder), upstream), listening, provider, once=once))


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise SettingsError(
            f"port {port} can not be had ({os.strerror(error.errno or 0)}): name another with --port"
        ) from error


def _settings(folder: Path, upstream: str) -> Settings:
    """Both providers, with keys of the gateway's own; Anthropic's clients must use that one."""
    return Settings(
        storage=Storage(url=f"sqlite:///{folder / 'aibridge.db'}", journal_dir=folder / "journal"),
        providers=(
            Provider(
                type="anthropic",
                name="anthropic",
                base_url=upstream,
                api_key=Secret("sk-ant-of-the-gateway-0123456789"),
                byok=False,
                max_retries=0,
            ),
            Provider(
                type="openai",
                name="openai",
                base_url=f"{upstream}/v1",
                api_key=Secret("sk-of-the-gateway-0123456789"),
                max_retries=0,
            ),
        ),
        mcp_servers=(MCPServer(name="demo", command=(sys.executable, "-m", "aibridge.server.demo_tools")),),
    )


async def _demo(
    settings: Settings, listening: socket.socket, provider: simulated_upstream.SimulatedUpstream, *, once: bool
) -> int:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    done: list[tuple[Exchange, Seen]] = []
    gateway = _DemoGateway(settings)
    async with _serving(gateway, listening), aiohttp.ClientSession() as http:
        console.print(f"The gateway listens on {url}; its provider is simulated, and does as [[ ]] says.\n")
        await gateway.tools_are_there()
        async for exchange, seen in exchanges(Sender(http, url, provider)):
            done.append((exchange, seen))
            _show(console, len(done), exchange, seen)
            if exchange.hidden is not None:
                recorded = (await _ended(settings.storage.url, {seen.interception})).get(seen.interception)
                _show_behind(console, exchange, seen, recorded)
            console.print()
        ended = await _ended(settings.storage.url, {seen.interception for _, seen in done})
        _show_records(console, settings.storage, done[0][1].interception)
        problems = [problem for exchange, seen in done for problem in _problems(exchange, seen, ended)]
        for problem in problems:
            console.print(Text(f"Not as it should be: {problem}", style="bold red"))
        if problems:
            return 1
        console.print(Text(f"All {len(done)} exchanges went as they should, and are recorded.", style="bold green"))
        if not once:
            _show_how_to_go_on(console, url, settings.storage)
            await _interruption()
    return 0


class _DemoGateway(Gateway):
    async def tools_are_there(self) -> None:
        """Return once the MCP server's tools are offered; also when it takes too long, for the exchanges show that."""
        deadline = monotonic() + _TOOLS_WITHIN
        while self.tool_servers and not all(state.tools for state in self.tool_servers.states):
            if monotonic() > deadline:
                return
            await asyncio.sleep(0.02)


class _Server(uvicorn.Server):
    """One that leaves signals to the demo."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _serving(gateway: Gateway, listening: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        gateway,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve([listening]))
    while not server.started and not running.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        await running


async def _interruption() -> None:
    with suppress(asyncio.CancelledError):  # SIGINT cancels the main task
        await asyncio.Event().wait()


async def _ended(database: str, interceptions: set[str]) -> dict[str, Shown]:
    """What is recorded of the interceptions, once all of them have ended; else what there is when the time is up."""
    deadline = monotonic() + _STORED_WITHIN
    while True:
        with reading(database) as records:
            found = {
                shown.interception["id"]: shown
                for session in records.sessions()
                for shown in records.show(session.session)
            }
        ended = {id_: shown for id_, shown in found.items() if shown.interception["ended_at"]}
        if interceptions <= ended.keys() or monotonic() > deadline:
            return ended
        await asyncio.sleep(0.02)


def _problems(exchange: Exchange, seen: Seen, ended: dict[str, Shown]) -> Iterator[str]:
    """What is not as the exchange demands, on the client's side and in the records."""
    if seen.http_status != exchange.http_status:
        yield f"{exchange.title}: the client got status {seen.http_status}, {exchange.http_status} is due"
    if (exchange.http_status < 400) == bool(seen.error):
        yield f"{exchange.title}: the client was told {seen.error or 'of no error'}"
    if not seen.said and not seen.error:
        yield f"{exchange.title}: the client got no answer"
    if seen.interception not in ended:
        yield f"{exchange.title}: its end is not recorded"
        return
    recorded = ended[seen.interception]
    status, kinds = recorded.interception["status"], {fact.kind for fact in recorded.facts}
    if status != exchange.recorded:
        yield f"{exchange.title}: it is recorded as {status}, {exchange.recorded} is due"
    if kinds != exchange.facts:
        yield f"{exchange.title}: recorded are {', '.join(sorted(kinds))}; due are {', '.join(sorted(exchange.facts))}"
    if exchange.hidden is not None and seen.provider:
        hidden = tuple(hidden_calls(seen.provider[-1], exchange.body))
        if hidden != exchange.hidden:
            yield f"{exchange.title}: the provider alone knows of {hidden}, {exchange.hidden} is due"
        if "bmcp_" in seen.called:
            yield f"{exchange.title}: the client got a call that is not its own"


def _show(console: Console, number: int, exchange: Exchange, seen: Seen) -> None:
    console.print(Text(f"{number:>2}  {exchange.title}", style="bold"))
    how = f"{seen.events} events, the first after {seen.first_event * 1000:.0f} ms" if seen.events else "in one piece"
    told = {
        exchange.actor: exchange.prompt,
        "status": f"{seen.http_status}, {how}",
        "thinks": seen.thought,
        "says": seen.said.strip() + (" (the client leaves)" if exchange.leaves else ""),
        "calls": seen.called,
        "error": seen.error,
    }
    for name, text in told.items():
        if text:
            _print_named(console, name, text)


def _show_behind(console: Console, exchange: Exchange, seen: Seen, recorded: Shown | None) -> None:
    """Show what the client does not see: the provider's side, with `+` for what is hidden, and the records."""
    if not seen.provider:
        return
    times = len(seen.provider)
    asked = "is asked" if times == 1 else f"is asked {times} times, in the end"
    hidden = " (+ is what the client never saw)" if exchange.hidden else ""
    _print_named(console, "provider", f"{asked} with{hidden}:")
    for line in lines(seen.provider[-1], exchange.body):
        text = f"{'+' if line.hidden else ' '} {line.role:<9}  {line.text}"
        _print_named(console, "", text, "yellow" if line.hidden else "")
    calls = [fact.details for fact in recorded.facts if fact.kind == "tool_call"] if recorded else []
    turns = sum(fact.kind == "token_usage" for fact in recorded.facts) if recorded else 0
    by = {False: "for the client to run", True: "run by the gateway"}
    _print_named(console, "recorded", "1 turn" if turns == 1 else f"{turns} turns")
    for call in calls:
        _print_named(console, "", f"{call['tool']} {call['input']}, {by[bool(call['injected'])]}")


def _print_named(console: Console, name: str, text: str, style: str = "") -> None:
    """Print a text with its name before it; where it is longer than the line, it goes on below itself."""
    for line in Text(text, style).wrap(console, max(console.width - 11, 20)):
        console.print(Text.assemble((f"{name:>9}", "cyan"), "  ", line))
        name = ""


def _show_records(console: Console, storage: Storage, interception: str) -> None:
    """Show the records by the code of the commands that anybody would use to see them."""
    console.print(Text("What was recorded: by session, the first session in full, and by user.\n", style="bold"))
    with reading(storage.url) as records:
        console.print(Text("$ aibridge sessions", style="bold cyan"))
        print_sessions(records.sessions())
        console.print(Text(f"\n$ aibridge show {interception}", style="bold cyan"))
        print_shown(records.show(interception))
        console.print(Text("\n$ aibridge usage --by user", style="bold cyan"))
        print_usage(records.usage("user"))
    console.print()


def _show_how_to_go_on(console: Console, url: str, storage: Storage) -> None:
    console.print(
        Text(
            f"""
The gateway goes on until you press Ctrl-C. Ask it something from another terminal:

  curl -N {url}/anthropic/v1/messages -H "X-User-ID: me" -H "Content-Type: application/json" \\
    -d '{{"model": "claude-sonnet-5-5", "max_tokens": 500, "stream": true,
         "messages": [{{"role": "user", "content": "Hello"}}]}}'

  ANTHROPIC_BASE_URL={url}/anthropic ANTHROPIC_API_KEY=any ANTHROPIC_CUSTOM_HEADERS="X-User-ID: me" \\
    claude -p "Hello"

  DEMO_KEY=any codex exec --skip-git-repo-check -c model_provider=demo -c 'model_providers.demo={{name="demo", \
base_url="{url}/openai/v1", env_key="DEMO_KEY", http_headers={{"X-User-ID"="me"}}}}' "Hello"

and see what was recorded; it is deleted at the end of the demo:

  aibridge sessions --database {storage.url}"""
        ),
        soft_wrap=True,
    )
