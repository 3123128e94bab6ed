"""Reading the settings: the one place that looks into files and the environment for them.

A setting stands in a TOML file (`[server] port = 8080`) or in the environment (`AIBRIDGE_SERVER_PORT=8080`), which
wins over the file. What is wrong is told all at once.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

import msgspec

from aibridge.errors import SettingsError
from aibridge.providers.credential import CREDENTIAL_HEADERS
from aibridge.server import tls, values
from aibridge.server.settings import (
    Audit,
    Auth,
    Breaker,
    Log,
    MCPServer,
    Metrics,
    Provider,
    Recording,
    Retention,
    Route,
    Section,
    Server,
    Settings,
    Storage,
    Tools,
    Tracing,
    Upstream,
    kinds,
)

BASE_URLS = {
    "anthropic": "https://api.anthropic.com",
    "openai": "https://api.openai.com/v1",
    "copilot": "https://api.githubcopilot.com",
    "bedrock": "https://bedrock-runtime.{region}.amazonaws.com",
}
"""Where the providers of each type are, unless `base_url` says otherwise."""

KEY_VARIABLES = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
"""With no provider configured: the variables whose presence configures one. Copilot's users bring their own keys."""

AWS_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
"""Variables that name the region of a bedrock provider, where its setting does not."""

BEDROCK_KEY = "AWS_BEARER_TOKEN_BEDROCK"
"""The variable in which AWS' own clients look for a Bedrock API key."""


RESERVED_NAMES = frozenset({"healthz", "readyz", "metrics"})
"""Routes of the gateway itself, which no provider can have as its prefix."""


_S = TypeVar("_S", bound=Section)


def load(config: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings from a file and the environment.

    `config` is the file; without it `AIBRIDGE_CONFIG` may name one. Raises `SettingsError`, whose message lists all
    that is wrong, one problem a line: the setting's full name, what was found and what is allowed.
    """
    return Loading(_file(config, environ), environ).settings()


def load_section(section: type[_S], config: Path | None, environ: Mapping[str, str]) -> _S:
    """One section alone, for a command that works on what is there: it must not ask for providers' keys."""
    return Loading(_file(config, environ), environ).only(section)


def _file(config: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    named = environ.get("AIBRIDGE_CONFIG")
    if config is None and not named:
        return {}
    path, source = (config, "--config") if config is not None else (Path(named or ""), "AIBRIDGE_CONFIG")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as fault:
        raise SettingsError(f"the settings file {path} ({source}) can not be read: {fault.strerror}") from fault
    except ValueError as fault:
        reason = "it is not UTF-8" if isinstance(fault, UnicodeDecodeError) else str(fault)
        raise SettingsError(f"the settings file {path} ({source}) is not valid TOML: {reason}") from fault


class _Given(NamedTuple):
    """A value as it was given, and the variable that it came from, if it did."""

    value: Any
    variable: str | None = None


_Table = dict[str, _Given]

_SECTIONS: dict[str, type[Section]] = {
    "server": Server,
    "storage": Storage,
    "recording": Recording,
    "retention": Retention,
    "audit": Audit,
    "auth": Auth,
    "metrics": Metrics,
    "upstream": Upstream,
    "breaker": Breaker,
    "tracing": Tracing,
    "log": Log,
    "tools": Tools,
}
_LISTS: dict[str, type[Section]] = {"providers": Provider, "routes": Route, "mcp_servers": MCPServer}

_KEYS = ("api_key", "api_key_env", "api_keys", "api_key_envs")
"""The ways to name a provider's keys, of which one is taken."""

_AWS_CREDENTIALS = ({*_KEYS}, {"access_key", "access_key_secret", "session_token"}, {"profile"})
"""The ways to name a Bedrock provider's credentials, of which one is taken at the most."""

_BEDROCKS = {"region", "model", "small_fast_model"}.union(*_AWS_CREDENTIALS[1:])
"""Settings that no other type has."""

_SPEAKS = {"anthropic": "Messages", "bedrock": "Messages", "openai": "Chat Completions and Responses"}
"""What providers of each type speak; a route leads to such as speak the same."""

_NOBODY = ["nobody"]

_OAUTH = frozenset({"oauth_client_id", "oauth_client_secret", "oauth_issuer"})
_WITH_URL = _OAUTH | {"headers", "transport"}

# Kubernetes describes every service to every container in such variables; a service named `aibridge-server` gives
# AIBRIDGE_SERVER_SERVICE_HOST and AIBRIDGE_SERVER_PORT=tcp://…, which are not meant as settings.
_SERVICE_LINK = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_.+)?)")
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://.*")


class Loading:
    """One reading of a decoded file and the environment; it goes on after a problem, so that all are told at once."""

    def __init__(self, file: dict[str, Any], environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self._variables = {
            name.removeprefix("AIBRIDGE_"): _Given(value, name)
            for name, value in environ.items()
            if name.startswith("AIBRIDGE_")
            and not _SERVICE_LINK.fullmatch(name)
            and not _SERVICE_LINK_VALUE.fullmatch(value)
        }
        self._problems: list[str] = []
        self._types: dict[str, str] = {}  # of the providers, by name

    def settings(self) -> Settings:
        """Everything; raises `SettingsError`."""
        for name in self._file.keys() - _SECTIONS.keys() - _LISTS.keys():
            self._problem(name, "no such section", _suggestion(name, [*_SECTIONS, *_LISTS]))
        settings = Settings(
            server=self._section("server", Server),
            storage=self._section("storage", Storage),
            recording=self._section("recording", Recording),
            retention=self._section("retention", Retention),
            audit=self._section("audit", Audit),
            auth=self._section("auth", Auth),
            metrics=self._section("metrics", Metrics),
            upstream=self._section("upstream", Upstream, _proxies(self._environ)),
            breaker=self._section("breaker", Breaker),
            tracing=self._section("tracing", Tracing, _open_telemetry(self._environ)),
            log=self._section("log", Log),
            tools=self._section("tools", Tools),
            providers=self._providers(),
            routes=self._routes(),
            mcp_servers=self._mcp_servers(),
        )
        self._look_for_files(settings)
        self._look_for_packages(settings.tracing)
        self._end()
        return settings

    def only(self, section: type[_S]) -> _S:
        """One section alone; raises `SettingsError`."""
        (name,) = [name for name, known in _SECTIONS.items() if known is section]
        read = self._section(name, section)
        self._end()
        return read

    def _end(self) -> None:
        if self._problems:
            raise SettingsError("\n".join(self._problems))

    def _look_for_files(self, settings: Settings) -> None:
        """Certificates and keys are read once before the gateway starts, and not for the first time by each worker."""
        found: set[str] = set()
        for provider in settings.providers:
            if provider.client_key and not provider.client_cert:
                where = f"providers.{provider.name}.client_key"
                self._problem(where, "there is no client_cert", "set that too, or remove it")
            try:
                tls.context(settings.upstream, provider)
            except SettingsError as fault:
                found.add(str(fault))
        self._problems += sorted(found)

    def _look_for_packages(self, tracing: Tracing) -> None:
        if not tracing.endpoint:
            return
        needed = ("opentelemetry.sdk", f"opentelemetry.exporter.otlp.proto.{tracing.protocol}")
        if missing := [name for name in needed if not _is_installed(name)]:
            remedy = "install it with pip install 'aibridge[otel]', or set no endpoint"
            self._problem("tracing.endpoint", f"to trace needs {' and '.join(missing)}, not installed", remedy)

    def _problem(self, setting: str, found: str, allowed: str, note: str = "") -> None:
        note = f" ({note})" if note else ""
        self._problems.append(f"{setting}{note}: {found}; {allowed}")

    # Plain sections

    def _section(self, name: str, section: type[_S], defaults: _Table | None = None) -> _S:
        table = {**(defaults or {}), **self._table(name, self._file.get(name, {}))}
        prefix = f"{name.upper()}_"
        for variable, given in self._variables.items():
            if variable.startswith(prefix):
                table[variable.removeprefix(prefix).lower()] = given
        return self._read(section, name, table) or section()

    def _table(self, name: str, value: Any) -> _Table:
        if isinstance(value, dict):
            return {key: _Given(found) for key, found in value.items()}
        self._problem(name, f"found {values.shown(value)}", f"allowed is a table, which begins with a line [{name}]")
        return {}

    def _read(self, section: type[_S], where: str, table: _Table, note: str = "") -> _S | None:
        """The section that a table describes; None where something is wrong with it."""
        known = kinds(section)
        problems = len(self._problems)
        read: dict[str, Any] = {}
        for name, (value, variable) in table.items():
            setting = f"{where}.{name}"
            about = ", ".join(filter(None, [note, variable and f"from {variable}"]))
            if name not in known:
                self._problem(setting, "no such setting", _suggestion(name, known), about)
                continue
            kind = known[name]
            if variable:
                value = kind.from_text(value)
            try:
                read[name] = kind.read(value)
            except ValueError as fault:
                reason = f", but {fault}" if str(fault) else ""
                self._problem(setting, f"found {kind.shown(value)}{reason}", f"allowed is {kind.allowed}", about)
        return section(**read) if len(self._problems) == problems else None

    # Lists of tables

    def _tables(self, name: str) -> list[_Table]:
        """The tables of a list, with what the environment says of each; a table is found there by its name."""
        listed = self._file.get(name, [])
        about = ""
        if name.upper() in self._variables:
            whole = self._variables[name.upper()]
            listed, about = values.parsed(whole.value), f"from {whole.variable}"
        if not isinstance(listed, list) or not all(isinstance(table, dict) for table in listed):
            allowed = f"allowed is a list of tables, each of which begins with a line [[{name}]]"
            self._problem(name, f"found {values.sort_of(listed)}", allowed, about)
            listed = []
        tables = [self._table(name, table) for table in listed]
        if name == "providers":
            for table in tables:
                if "type" in table:
                    table.setdefault("name", table["type"])
            tables = tables or self._built_in()
        self._overlay(name, tables)
        return tables

    def _overlay(self, list_name: str, tables: list[_Table]) -> None:
        settings = kinds(_LISTS[list_name])
        by_prefix = {f"{_name(table).upper().replace('-', '_')}_": table for table in tables if _name(table)}
        longest_first = sorted(by_prefix, key=len, reverse=True)
        for variable, given in self._variables.items():
            if not variable.startswith(f"{list_name.upper()}_"):
                continue
            rest = variable.removeprefix(f"{list_name.upper()}_")
            fitting = [prefix for prefix in longest_first if rest.startswith(prefix)]
            if not fitting:
                names = ", ".join(prefix.rstrip("_") for prefix in by_prefix) or "none"
                allowed = f"it is AIBRIDGE_{list_name.upper()}_<NAME>_<SETTING>, and the names are: {names}"
                self._problem(f"{list_name}", f"{given.variable} names none that is configured", allowed)
                continue
            # Of the providers `a` and `a-b`, A_B_TYPE can only mean the type of `a-b`, and A_BYOK only that of `a`.
            known = [prefix for prefix in fitting if rest.removeprefix(prefix).lower() in settings]
            prefix = (known or fitting)[0]
            key = rest.removeprefix(prefix).lower()
            by_prefix[prefix][key] = given
            # The environment wins: a key from there also stands for the file's other way to name one.
            for other in _KEYS if key in _KEYS else ():
                if other in by_prefix[prefix] and by_prefix[prefix][other].variable is None:
                    del by_prefix[prefix][other]

    def _built_in(self) -> list[_Table]:
        """The providers where none is configured: those that the environment has a key for, and Copilot."""
        built_in: list[_Table] = []
        for type_ in BASE_URLS:
            table = {"type": _Given(type_), "name": _Given(type_)}
            key = KEY_VARIABLES.get(type_)
            if key and self._environ.get(key):
                table["api_key_env"] = _Given(key)
            mentioned = any(variable.startswith(f"PROVIDERS_{type_.upper()}_") for variable in self._variables)
            if "api_key_env" in table or type_ == "copilot" or mentioned:
                built_in.append(table)
        return built_in

    def _providers(self) -> tuple[Provider, ...]:
        tables = self._tables("providers")
        self._check_names("providers", tables)
        self._types = {_name(table): str(table["type"].value) for table in tables if "type" in table}
        return tuple(filter(None, (self._provider(i, table) for i, table in enumerate(tables))))

    def _provider(self, index: int, table: _Table) -> Provider | None:
        where, note = f"providers[{index}]", _note(table)
        if "type" not in table:
            kind = kinds(Provider)["type"]
            self._problem(f"{where}.type", "it is missing", f"allowed is {kind.allowed}", note)
            table["type"] = _Given("anthropic")  # so that the rest can be read
            table.setdefault("name", _Given("unnamed"))
        type_ = table["type"].value
        if type_ == "bedrock":
            self._complete_bedrock(where, table, note)
        else:
            for setting in sorted(table.keys() & _BEDROCKS):
                self._problem(f"{where}.{setting}", "it is a setting of bedrock providers only", "remove it", note)
        headers = table["headers"].value if "headers" in table else {}
        for name in headers if isinstance(headers, dict) else ():
            if name.lower() in CREDENTIAL_HEADERS:
                found = f"the header {values.shown(name)} holds a credential"
                self._problem(f"{where}.headers", found, "set api_key, and key_header where that is another", note)
        if "ask_for_usage" in table and type_ != "openai":
            found = "it is a setting of openai providers only"
            self._problem(f"{where}.ask_for_usage", found, "remove it", note)
        if isinstance(type_, str) and type_ in BASE_URLS:
            table.setdefault("base_url", _Given(BASE_URLS[type_]))
        else:
            table.setdefault("base_url", _Given("https://unknown.invalid"))  # the type is the problem, not this
        if _name(table) in RESERVED_NAMES:
            taken = f'"/{_name(table)}" is a route of the gateway itself'
            self._problem(f"{where}.name", taken, "take another name", note)
        named = [key for key in _KEYS if key in table]
        if len(named) > 1:
            found = f"both {named[0]} and {named[1]} are set" if len(named) == 2 else f"{', '.join(named)} are all set"
            self._problem(where, found, "keep one of them", note)
        elif type_ == "copilot" and named:
            self._problem(f"{where}.{named[0]}", "a copilot provider has no key of its own", "users bring theirs", note)
        provider = self._read(Provider, where, table, note)
        if provider is None:
            return None
        if provider.api_key_env is not None:
            key = self._key(f"{where}.api_key_env", provider.api_key_env, note)
            return msgspec.structs.replace(provider, api_key=key) if key else None
        if provider.api_key_envs is not None:
            keys = [self._key(f"{where}.api_key_envs", variable, note) for variable in provider.api_key_envs]
            return msgspec.structs.replace(provider, api_keys=tuple(filter(None, keys))) if all(keys) else None
        return provider

    def _key(self, setting: str, variable: str, note: str) -> values.Secret | None:
        """The key in a variable; None where there is none."""
        key = self._environ.get(variable, "")
        try:
            return values.SECRET.read(key)
        except ValueError:
            found = "does not hold a key" if key else "is not set"
            remedy = f"put the provider's key into {variable}, or name another variable"
            self._problem(setting, f"the variable {variable} {found}", remedy, note)
            return None

    def _complete_bedrock(self, where: str, table: _Table, note: str) -> None:
        """Look at the settings of a Bedrock provider, and put in what the environment says."""
        for setting in ("key_header", "query"):
            if setting in table:
                self._problem(f"{where}.{setting}", "a bedrock provider has no use for it", "remove it", note)
        given = [settings & table.keys() for settings in _AWS_CREDENTIALS]
        if len([settings for settings in given if settings]) > 1:
            names = " and ".join(min(settings) for settings in given if settings)
            self._problem(where, f"both {names} are set", "keep one way to get credentials", note)
        if ("access_key" in table) != ("access_key_secret" in table):
            one, other = ("access_key", "access_key_secret")[:: 1 if "access_key" in table else -1]
            allowed = f"set {other} as well, or neither of them to find credentials as AWS' own clients do"
            self._problem(where, f"{one} is set, but no {other}", allowed, note)
        elif "session_token" in table and "access_key" not in table:
            self._problem(where, "session_token is set, but no access_key", "set what it belongs to as well", note)
        if not any(given) and self._environ.get(BEDROCK_KEY):
            table["api_key_env"] = _Given(BEDROCK_KEY)
        variable = next((name for name in AWS_REGIONS if self._environ.get(name)), None)
        if "region" not in table and variable:
            table["region"] = _Given(self._environ[variable], variable)
        kind, region = kinds(Provider)["region"], "us-east-1"  # any would do, so that the rest can be read
        if "region" not in table:
            allowed = f"allowed is {kind.allowed}; or set the variable {AWS_REGIONS[0]}"
            self._problem(f"{where}.region", "it is missing", allowed, note)
        else:
            with suppress(ValueError):  # told with all others
                region = kind.read(table["region"].value)
        table.setdefault("base_url", _Given(BASE_URLS["bedrock"].format(region=region)))

    def _routes(self) -> tuple[Route, ...]:
        tables = self._tables("routes")
        self._check_names("routes", tables)
        return tuple(filter(None, (self._route(i, table) for i, table in enumerate(tables))))

    def _route(self, index: int, table: _Table) -> Route | None:
        where, note = f"routes[{index}]", _note(table)
        for setting in {"name", "providers"} - table.keys():
            self._problem(f"{where}.{setting}", "it is missing", f"allowed is {kinds(Route)[setting].allowed}", note)
            table[setting] = _Given("unnamed" if setting == "name" else _NOBODY)  # so that the rest can be read
        if _name(table) in RESERVED_NAMES or _name(table) in self._types:
            whose = "the gateway itself" if _name(table) in RESERVED_NAMES else "a provider"
            taken = f'"/{_name(table)}" is a route of {whose}'
            self._problem(f"{where}.name", taken, "take another name", note)
        route = self._read(Route, where, table, note)
        if route is None:
            return None
        for name in route.providers:
            if name not in self._types and table["providers"].value is not _NOBODY:
                self._problem(
                    f"{where}.providers", f"{values.shown(name)} is no provider", _suggestion(name, self._types), note
                )
        types = [self._types[name] for name in route.providers if name in self._types]
        if len({*route.providers}) < len(route.providers):
            self._problem(f"{where}.providers", "a provider is named twice", "each is asked once", note)
        if "copilot" in types:
            found = "a copilot provider has no key of its own, and those of clients are not for a route"
            self._problem(f"{where}.providers", found, "let clients ask it by its own name", note)
        elif len({_SPEAKS.get(type_) for type_ in types}) > 1:
            self._problem(f"{where}.providers", "they speak different dialects", "make a route for each", note)
        of_aliases = {name for alias in route.aliases.values() if isinstance(alias, dict) for name in alias}
        for setting, names in (("when", {*route.when}), ("aliases", of_aliases)):
            for name in sorted(names - {*route.providers}):
                found = f"{values.shown(name)} is none of its providers"
                self._problem(f"{where}.{setting}", found, _suggestion(name, route.providers), note)
        return route

    def _mcp_servers(self) -> tuple[MCPServer, ...]:
        tables = self._tables("mcp_servers")
        self._check_names("mcp_servers", tables)
        return tuple(filter(None, (self._mcp_server(i, table) for i, table in enumerate(tables))))

    def _mcp_server(self, index: int, table: _Table) -> MCPServer | None:
        where, note = f"mcp_servers[{index}]", _note(table)
        if "name" not in table:
            self._problem(f"{where}.name", "it is missing", f"allowed is {kinds(MCPServer)['name'].allowed}")
            table["name"] = _Given("unnamed")  # so that the rest can be read
        if ("url" in table) == ("command" in table):
            found = "both url and command are set" if "url" in table else "neither url nor command is set"
            self._problem(where, found, "a server is reached at a url or started by a command", note)
        for setting in table.keys() & (_WITH_URL if "command" in table else {"environment"}):
            kind = "is started" if "command" in table else "has a url"
            self._problem(f"{where}.{setting}", f"a server that {kind} has no {setting}", "remove it", note)
        if 0 < len(table.keys() & _OAUTH) < len(_OAUTH):
            missing = ", ".join(sorted(_OAUTH - table.keys()))
            self._problem(where, f"{missing} missing", "OAuth needs all of them", note)
        return self._read(MCPServer, where, table, note)

    def _check_names(self, list_name: str, tables: list[_Table]) -> None:
        first: dict[str, int] = {}
        for index, table in enumerate(tables):
            name = _name(table)
            if name and first.setdefault(name, index) != index:
                taken = f"{values.shown(name)} is already the name of {list_name}[{first[name]}]"
                self._problem(f"{list_name}[{index}].name", taken, "each needs a name of its own")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even what it is a part of
        return False


def _proxies(environ: Mapping[str, str]) -> _Table:
    """What the variables that most programs know say of proxies; in small letters they win, as elsewhere."""
    table: _Table = {}
    for setting, *names in (
        ("http_proxy", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
        ("https_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
        ("no_proxy", "no_proxy", "NO_PROXY"),
    ):
        if variable := next((name for name in names if environ.get(name)), None):
            table[setting] = _Given(environ[variable], variable)
    return table


def _open_telemetry(environ: Mapping[str, str]) -> _Table:
    """What OpenTelemetry's own variables say of the section `[tracing]`; others are read by its packages themselves.

    Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/. What is of traces wins over what is of all.
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return {}
    table: _Table = {}
    for setting in ("endpoint", "protocol", "headers"):
        for of in ("OTLP", "OTLP_TRACES"):
            variable = f"OTEL_EXPORTER_{of}_{setting.upper()}"
            if told := environ.get(variable):
                table[setting] = _Given(told, variable)
    if "protocol" in table:
        protocol = table["protocol"]
        table["protocol"] = protocol._replace(value={"http/protobuf": "http"}.get(protocol.value, protocol.value))
    if "headers" in table:
        pairs = (pair.partition("=") for pair in table["headers"].value.split(",") if pair.strip())
        table["headers"] = _Given({name.strip(): unquote(value.strip()) for name, _, value in pairs})
    return table


def _name(table: _Table) -> str:
    """The name in a table of a list; empty where it has none that could be one."""
    name = table["name"].value if "name" in table else None
    return name if isinstance(name, str) else ""


def _note(table: _Table) -> str:
    return values.shown(_name(table)) if _name(table) else ""


def _suggestion(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known)}"
