"""Whether a gateway could work with its settings: whether it can record, and who is to answer it does.

Nothing is asked that costs tokens: a provider lists its models.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

import aiohttp
import click

from aibridge.errors import Fault, RecordingError
from aibridge.http_client.connecting import Connecting
from aibridge.providers import AnthropicProvider, BedrockProvider, Credential, Provider
from aibridge.recording.databases import schema_of
from aibridge.recording.stores import is_postgresql, sqlite_path
from aibridge.server import values
from aibridge.server.audit import forwarder
from aibridge.server.connecting import connecting
from aibridge.server.gateway import provider_of
from aibridge.server.redaction import redaction
from aibridge.server.settings import Provider as ProviderSettings
from aibridge.server.settings import Settings, Storage
from aibridge.upstream.upstream import TimeLimits, Upstream, UpstreamRequest

_LIMITS = TimeLimits(connect=5.0, first_byte=10.0)
"""Somebody is waiting for the outcome."""

_ANTHROPIC_VERSION = ("anthropic-version", "2023-06-01")  # without one, every request is refused

_COLORS = {"ok": "green", "note": "yellow", "FAIL": "red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `told` names no secret, and where it is a failure, also the remedy."""

    verdict: Literal["ok", "note", "FAIL"]
    about: str
    told: str


def check(settings: Settings) -> int:
    """Look at all that the gateway needs, and print what was found: the exit status, 1 where anything fails.

    Raises `SettingsError` where code that the settings name can not be had.
    """
    redaction(settings.recording)
    forwarder(settings.audit)
    logging.getLogger("aibridge").addHandler(logging.NullHandler())  # what it would tell is among what is printed
    findings = [
        _folder("journal", settings.storage.journal_dir, "storage.journal_dir"),
        *([_folder("audit trail", settings.audit.dir, "audit.dir")] if settings.audit.dir else ()),
        _database(settings.storage),
        *asyncio.run(_providers(settings.providers, connecting(settings.upstream, settings.providers))),
        *(asyncio.run(_mcp_servers(settings)) if settings.mcp_servers else ()),
    ]
    for finding in findings:
        verdict = click.style(f"{finding.verdict:<4}", fg=_COLORS[finding.verdict])
        click.echo(f"{verdict}  {finding.about:<12}  {finding.told}")
    return 1 if any(finding.verdict == "FAIL" for finding in findings) else 0


def _folder(about: str, folder: Path, setting: str) -> Finding:
    """Whether files can be written to a folder that a setting names."""
    if not folder.exists():
        return _to_be_made(about, folder, setting)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b" " * 4096)
            file.flush()
    except OSError as error:
        return Finding(
            "FAIL",
            about,
            f"{folder} can not be written ({error.strerror}): give it to the gateway's user and see that its disk has "
            f"room, or set {setting} to another folder",
        )
    return Finding("ok", about, f"{folder} can be written")


def _database(storage: Storage) -> Finding:
    if is_postgresql(storage.url):
        return _postgresql(storage.url)
    path = sqlite_path(storage.url)
    if not path.exists():
        return _to_be_made("database", path, "storage.url")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")  # what a writer does first; a running gateway only waits a moment
            (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        return Finding(
            "FAIL",
            "database",
            f"{path} can not be used ({error}): see that it is a SQLite database, that the gateway's user may write it "
            "and its folder, and that no other program keeps it locked, or set storage.url to another one",
        )
    return Finding("ok", "database", f"{path} can be written" + ("" if tables else "; it is empty"))


def _postgresql(url: str) -> Finding:
    try:
        schema = schema_of(url)
    except RecordingError as error:
        return Finding("FAIL", "database", str(error))
    told = f"{values.shown_url(url)} has schema {schema.found}"
    match schema.state:
        case "old":
            return Finding("FAIL", "database", f"{told}, {schema.needed} is needed: run `aibridge db upgrade`")
        case "newer":
            return Finding("FAIL", "database", f"{told}, this aibridge knows {schema.needed}: upgrade aibridge")
        case "empty":
            return Finding("ok", "database", f"{values.shown_url(url)} can be reached; its tables will be made")
    return Finding("ok", "database", f"{told}, as it should be")


def _to_be_made(about: str, path: Path, setting: str) -> Finding:
    """What is found where there is nothing yet: the gateway makes it, if it may."""
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    if about == "database" and existing != path.absolute().parent:
        return Finding("FAIL", about, f"the folder of {path} does not exist: make it, or change {setting}")
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        remedy = f"give it to the gateway's user, or change {setting}"
        return Finding("FAIL", about, f"{path} can not be made, for {existing} is not writable: {remedy}")
    return Finding("ok", about, f"{path} will be made at the start")


async def _providers(providers: tuple[ProviderSettings, ...], connecting: Connecting) -> list[Finding]:
    if not providers:
        remedy = "write a [[providers]] table, or set ANTHROPIC_API_KEY or OPENAI_API_KEY"
        return [Finding("FAIL", "providers", f"none is configured: {remedy}")]
    upstream = Upstream(_LIMITS, connecting=connecting)
    try:
        found = await asyncio.gather(*(_provider(each, upstream) for each in providers))
        return list(chain.from_iterable(found))
    finally:
        await upstream.aclose()


async def _provider(settings: ProviderSettings, upstream: Upstream) -> list[Finding]:
    """Ask a provider for its models, the way the gateway would, with each of its keys."""
    provider = provider_of(settings)
    if isinstance(provider, BedrockProvider):
        return [await _bedrock(provider, upstream)]
    credentials = provider.credentials if len(provider.credentials) > 1 else [provider.credential({})]
    names = [settings.api_key_env] if settings.api_key_env else settings.api_key_envs or []
    return await asyncio.gather(
        *(
            _credential(settings, provider, credential, number, f"the variable {name}" if name else "", upstream)
            for number, (credential, name) in enumerate(zip_longest(credentials, names[: len(credentials)]), 1)
        )
    )


async def _credential(
    settings: ProviderSettings, provider: Provider, credential: Credential, number: int, place: str, upstream: Upstream
) -> Finding:
    """The same with one key, which stands in `place`."""
    headers = [("accept", "application/json"), ("user-agent", "aibridge")]
    if isinstance(provider, AnthropicProvider):
        headers.append(_ANTHROPIC_VERSION)
    headers += provider.headers
    if credential.header:
        headers.append(credential.header)
    models = next(path for path in provider.passthrough if path.endswith("/models"))
    url = provider.with_query(provider.upstream_url(models), "")
    several = len(provider.credentials) > 1
    where = f"{provider.base_url}, key {number} ({credential.hint})" if several else provider.base_url
    try:
        answer = await upstream.send(UpstreamRequest(provider.name, "GET", url, headers, b""))
    except Fault as fault:
        return Finding("FAIL", provider.name, f"{where}: {fault.message}; {_remedy(fault)}")
    try:
        location = answer.header(b"location")
    finally:
        answer.close()
    place = place or (f"the place of api_keys[{number - 1}]" if several else "its api_key")
    verdict, told = _told(settings, provider, answer.status, location, place)
    return Finding(verdict, provider.name, f"{where}: {', '.join([_connection(provider), *told])}")


async def _bedrock(provider: BedrockProvider, upstream: Upstream) -> Finding:
    """Ask Bedrock, which lists no models here."""
    from aibridge.server.check_bedrock import look

    try:
        verdict, told = await look(provider, upstream)
    except Fault as fault:
        return Finding("FAIL", provider.name, f"{provider.base_url}: {fault.message}; {_remedy(fault)}")
    return Finding(verdict, provider.name, f"{provider.base_url}: {', '.join(told)}")


async def _mcp_servers(settings: Settings) -> list[Finding]:
    """Connect to the MCP servers and list their tools, the way the gateway would."""
    from aibridge.mcp.config import Timing
    from aibridge.server.tool_servers import tool_servers

    servers = tool_servers(settings)
    await servers.start()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(Timing().connect):
                while not all(state.connected or state.error for state in servers.states):  # noqa: ASYNC110  # a poll will do
                    await asyncio.sleep(0.05)
        states = servers.states
    finally:
        await servers.aclose()
    return [
        Finding("ok", state.name, f"MCP server reachable; {state.tools} of its tools are offered")
        if state.connected
        else Finding(
            "FAIL",
            state.name,
            f"MCP server not reachable ({state.error or 'it does not answer'}): see its url or command and its "
            "credentials; the gateway goes on without its tools until it answers",
        )
        for state in states
    ]


def _connection(provider: Provider) -> str:
    return "reachable with TLS" if provider.base_url.startswith("https:") else "reachable without TLS"


def _told(
    settings: ProviderSettings, provider: Provider, status: int, location: str, place: str
) -> tuple[Literal["ok", "note", "FAIL"], list[str]]:
    """What a status says of the provider and the key that it was shown, which stands in `place`."""
    if 300 <= status < 400:
        target = urlsplit(location)
        where = f"{target.scheme}://{target.hostname}" if target.hostname else "elsewhere"
        return "FAIL", [f"but it redirects to {where}, and the gateway follows no redirects: set its base_url to that"]
    if status >= 500:
        return "FAIL", [f"but it answers {status}: try again later, and see its status page"]
    if provider.credentials:
        if status in (401, 403):
            return "FAIL", [f"credential refused ({status}): put a valid key into {place}"]
        if status < 300:
            return "ok", ["credential accepted"]
        if status == 429:
            return "note", ["credential accepted, but limited at the moment (429)"]
    elif settings.byok or settings.type == "copilot":
        if status in (401, 403) or status < 300:
            return "ok", ["no credential configured: clients bring theirs"]
    else:
        return "FAIL", ["no credential configured, and byok = false drops what clients bring: set api_key_env"]
    return "note", [f"but it answers {status} where models are listed, so the credential is untested: see its base_url"]


def _remedy(fault: Fault) -> str:
    """What to do where a provider was not reached."""
    match fault.__cause__:
        case aiohttp.ClientSSLError():
            return "see that its base_url is one of https, and that nothing on the way changes the connection"
        case _:
            return "see its base_url, and the name service and the firewall of this machine"
