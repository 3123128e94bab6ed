"""The settings of the gateway: what there is to set, and the one place that reads files and the environment for it.

A setting stands in a TOML file (`[server] port = 8080`) or in the environment (`AIBRIDGE_SERVER_PORT=8080`), which
wins over the file. Each setting is a field whose annotation names the kind of its value (`values.py`).
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec

from aibridge.errors import SettingsError
from aibridge.server import values
from aibridge.server.values import Kind, Secret, duration, one_of, text, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NAME = text('lower-case letters and digits, with single "-" between them', r"[a-z0-9]+(-[a-z0-9]+)*")


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One table of settings. Its repr holds no secret: not a key, and not what a URL may carry."""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={self._shown(name, kind)}" for name, kind in _kinds(type(self)).items())
        return f"{type(self).__name__}({fields})"

    def _shown(self, name: str, kind: Kind[Any]) -> str:
        value = getattr(self, name)
        if value and kind.shown is values.sort_of and kind is not values.VARIABLE:
            return "***"
        if value and kind.shown is values.shown_url:
            return values.shown_url(value)
        return repr(value)


class Server(Section, frozen=True, kw_only=True):
    """Where and how the gateway listens."""

    host: Annotated[str, values.ANY_TEXT] = "127.0.0.1"
    port: Annotated[int, whole_number(0, 65535)] = 8080
    """0 takes any free port."""
    workers: Annotated[int, whole_number(1, 1024)] = 1
    shutdown_grace: Annotated[float, duration(zero=True)] = 30.0
    """Seconds that exchanges in flight may take to finish once the gateway is told to stop."""
    max_body_size: Annotated[int, values.SIZE] = 32 * 2**20
    """Bytes of a request's body."""


class Storage(Section, frozen=True, kw_only=True):
    """Where the records are kept."""

    url: Annotated[str, values.DATABASE_URL] = "sqlite:///aibridge.db"
    journal_dir: Annotated[Path, values.PATH] = Path("aibridge-journal")
    required: Annotated[bool, values.BOOLEAN] = True
    """Whether a request is refused (503) when it can not be recorded."""

    @property
    def path(self) -> Path:
        """The file of the database."""
        return Path(self.url.removeprefix("sqlite:///"))


class Auth(Section, frozen=True, kw_only=True):
    """How the gateway learns who asks."""

    mode: Annotated[Literal["none", "header"], one_of("none", "header", later=("keys", "jwt"))] = "header"
    """`none`: everybody is `anonymous`. `header`: a trusted proxy in front names the actor."""
    header: Annotated[str, text("the name of a header", r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")] = "X-User-ID"


class Metrics(Section, frozen=True, kw_only=True):
    """What Prometheus sees."""

    namespace: Annotated[
        str, text('letters, digits and "_", no digit first; "" for none', r"([A-Za-z_][A-Za-z0-9_]*)?")
    ] = "aibridge"


class Upstream(Section, frozen=True, kw_only=True):
    """How providers are reached. Times are in seconds."""

    dump_dir: Annotated[Path | None, values.PATH_OR_NONE] = None
    """Where whole exchanges are written for debugging; None writes none."""
    connect_timeout: Annotated[float, duration(zero=False)] = 10.0
    first_byte_timeout: Annotated[float, duration(zero=False)] = 600.0
    idle_timeout: Annotated[float, duration(zero=False)] = 300.0
    """Between two chunks of an answer."""
    keepalive_interval: Annotated[float, duration(zero=True)] = 15.0
    """How long an upstream may be silent before the client of a stream gets a keep-alive; 0 sends none."""


class Breaker(Section, frozen=True, kw_only=True):
    """The circuit breakers, one for each provider, endpoint and model. Times are in seconds."""

    enabled: Annotated[bool, values.BOOLEAN] = True
    failures: Annotated[int, whole_number(1)] = 5
    """In a row, until a breaker opens."""
    reset: Annotated[float, duration(zero=False)] = 10.0
    """After which a closed breaker forgets the failures that it has counted."""
    open: Annotated[float, duration(zero=False)] = 30.0
    """How long an open breaker refuses every request."""
    probes: Annotated[int, whole_number(1)] = 3
    """How many requests at a time may then try whether the provider is well again."""


class Log(Section, frozen=True, kw_only=True):
    """The gateway's own log, on standard error."""

    format: Annotated[Literal["auto", "json", "text"], one_of("auto", "json", "text")] = "auto"
    """`auto`: text on a terminal, else JSON."""
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        one_of("debug", "info", "warning", "error"),
    ] = "info"


class Provider(Section, frozen=True, kw_only=True):
    """One upstream."""

    type: Annotated[
        Literal["anthropic", "openai", "copilot"],
        one_of("anthropic", "openai", "copilot", later=("bedrock",)),
    ]
    name: Annotated[str, _NAME]
    """Unique; also the prefix of its routes."""
    base_url: Annotated[str, values.BASE_URL]
    """Without a slash at its end."""
    api_key: Annotated[Secret | None, values.SECRET] = None
    """The configured key, wherever it was read from; None where every client has to bring its own."""
    api_key_env: Annotated[str | None, values.VARIABLE] = None
    """The variable that `api_key` was read from, if it was."""
    max_retries: Annotated[int, whole_number(0, 100)] = 2
    send_actor_headers: Annotated[bool, values.BOOLEAN] = False
    byok: Annotated[bool, values.BOOLEAN] = True
    """False: what the client sends as its credential is dropped."""


class MCPServer(Section, frozen=True, kw_only=True):
    """A server of tools that are offered to the model: reached at `url`, or started as `command`; never both."""

    name: Annotated[
        str, text('letters and digits, with single "-" or "_" between them', r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*")
    ]
    url: Annotated[str | None, values.SERVER_URL] = None
    transport: Annotated[Literal["streamable-http", "sse"], one_of("streamable-http", "sse")] = "streamable-http"
    """How a server at a URL is spoken to; `sse` is the older transport."""
    command: Annotated[tuple[str, ...] | None, values.COMMAND] = None
    environment: Annotated[dict[str, Secret], values.ENVIRONMENT] = {}
    """Variables for `command`, which gets few of the gateway's own."""
    tool_allow: Annotated[str, values.REGULAR_EXPRESSION] = ""
    tool_deny: Annotated[str, values.REGULAR_EXPRESSION] = ""
    headers: Annotated[dict[str, Secret], values.HEADERS] = {}
    oauth_client_id: Annotated[str | None, values.ANY_TEXT] = None
    oauth_client_secret: Annotated[Secret | None, values.SECRET] = None
    oauth_issuer: Annotated[str | None, values.SERVER_URL] = None
    """The authorization server to which the client's id and secret belong; they are sent to no other."""


class Tools(Section, frozen=True, kw_only=True):
    """How the tools of MCP servers are used."""

    max_turns: Annotated[int, whole_number(1, 1000)] = 10
    """Requests upstream within one interception; in the last one no tool is offered."""
    call_timeout: Annotated[float, duration(zero=False)] = 60.0
    max_result_size: Annotated[int, values.SIZE] = 2**20
    """Bytes of a tool's result that go to the model."""
    policy: Annotated[str, text("allow, deny, or package.module:name", r"allow|deny|[\w.]+:\w+")] = "allow"
    """Whether a call may be made: always, never, or as a callable says (see `aibridge.mcp.policy`)."""
    remember: Annotated[float, duration(zero=True)] = 7 * 24 * 3600.0
    """How long hidden calls and results are kept for later requests of their conversation; 0 keeps none."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set."""

    server: Server = Server()
    storage: Storage = Storage()
    auth: Auth = Auth()
    metrics: Metrics = Metrics()
    upstream: Upstream = Upstream()
    breaker: Breaker = Breaker()
    log: Log = Log()
    tools: Tools = Tools()
    providers: tuple[Provider, ...] = ()
    mcp_servers: tuple[MCPServer, ...] = ()


BASE_URLS = {
    "anthropic": "https://api.anthropic.com",
    "openai": "https://api.openai.com/v1",
    "copilot": "https://api.githubcopilot.com",
}
"""Where the providers of each type are, unless `base_url` says otherwise."""

KEY_VARIABLES = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
"""With no provider configured: the variables whose presence configures one. Copilot's users bring their own keys."""

RESERVED_NAMES = frozenset({"healthz", "readyz", "metrics"})
"""Routes of the gateway itself, which no provider can have as its prefix."""


def load(config: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings from a file and the environment.

    `config` is the file; without it `AIBRIDGE_CONFIG` may name one. Raises `SettingsError`, whose message lists all
    that is wrong, one problem a line: the setting's full name, what was found and what is allowed.
    """
    return Loading(_file(config, environ), environ).settings()


def load_storage(config: Path | None, environ: Mapping[str, str]) -> Storage:
    """The `[storage]` section alone, for a command that only reads records: it must not ask for providers' keys."""
    return Loading(_file(config, environ), environ).storage()


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
_S = TypeVar("_S", bound=Section)

_SECTIONS: dict[str, type[Section]] = {
    "server": Server,
    "storage": Storage,
    "auth": Auth,
    "metrics": Metrics,
    "upstream": Upstream,
    "breaker": Breaker,
    "log": Log,
    "tools": Tools,
}
_LISTS: dict[str, type[Section]] = {"providers": Provider, "mcp_servers": MCPServer}

_OAUTH = frozenset({"oauth_client_id", "oauth_client_secret", "oauth_issuer"})
_WITH_URL = _OAUTH | {"headers", "transport"}

# Kubernetes describes every service to every container in such variables; a service named `aibridge-server` gives
# AIBRIDGE_SERVER_SERVICE_HOST and AIBRIDGE_SERVER_PORT=tcp://…, which are not meant as settings.
_SERVICE_LINK = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_.+)?)")
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://.*")


@functools.cache
def _kinds(section: type[Section]) -> dict[str, Kind[Any]]:
    """The settings of a section, by name, each with its kind."""
    hints = typing.get_type_hints(section, include_extras=True)
    return {name: hints[name].__metadata__[0] for name in section.__struct_fields__}


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

    def settings(self) -> Settings:
        """Everything; raises `SettingsError`."""
        for name in self._file.keys() - _SECTIONS.keys() - _LISTS.keys():
            self._problem(name, "no such section", _suggestion(name, [*_SECTIONS, *_LISTS]))
        settings = Settings(
            server=self._section("server", Server),
            storage=self._section("storage", Storage),
            auth=self._section("auth", Auth),
            metrics=self._section("metrics", Metrics),
            upstream=self._section("upstream", Upstream),
            breaker=self._section("breaker", Breaker),
            log=self._section("log", Log),
            tools=self._section("tools", Tools),
            providers=self._providers(),
            mcp_servers=self._mcp_servers(),
        )
        self._end()
        return settings

    def storage(self) -> Storage:
        """The section `[storage]` alone; raises `SettingsError`."""
        storage = self._section("storage", Storage)
        self._end()
        return storage

    def _end(self) -> None:
        if self._problems:
            raise SettingsError("\n".join(self._problems))

    def _problem(self, setting: str, found: str, allowed: str, note: str = "") -> None:
        note = f" ({note})" if note else ""
        self._problems.append(f"{setting}{note}: {found}; {allowed}")

    # Plain sections

    def _section(self, name: str, section: type[_S]) -> _S:
        table = self._table(name, self._file.get(name, {}))
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
        kinds = _kinds(section)
        problems = len(self._problems)
        read: dict[str, Any] = {}
        for name, (value, variable) in table.items():
            setting = f"{where}.{name}"
            about = ", ".join(filter(None, [note, variable and f"from {variable}"]))
            if name not in kinds:
                self._problem(setting, "no such setting", _suggestion(name, kinds), about)
                continue
            kind = kinds[name]
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
        kinds = _kinds(_LISTS[list_name])
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
            known = [prefix for prefix in fitting if rest.removeprefix(prefix).lower() in kinds]
            prefix = (known or fitting)[0]
            key = rest.removeprefix(prefix).lower()
            by_prefix[prefix][key] = given
            # The environment wins: a key from there also stands for the file's other way to name one.
            other = {"api_key": "api_key_env", "api_key_env": "api_key"}.get(key)
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
            if "api_key_env" in table or key is None or mentioned:
                built_in.append(table)
        return built_in

    def _providers(self) -> tuple[Provider, ...]:
        tables = self._tables("providers")
        self._check_names("providers", tables)
        return tuple(filter(None, (self._provider(i, table) for i, table in enumerate(tables))))

    def _provider(self, index: int, table: _Table) -> Provider | None:
        where, note = f"providers[{index}]", _note(table)
        if "type" not in table:
            kind = _kinds(Provider)["type"]
            self._problem(f"{where}.type", "it is missing", f"allowed is {kind.allowed}", note)
            table["type"] = _Given("anthropic")  # so that the rest can be read
            table.setdefault("name", _Given("unnamed"))
        type_ = table["type"].value
        if isinstance(type_, str) and type_ in BASE_URLS:
            table.setdefault("base_url", _Given(BASE_URLS[type_]))
        else:
            table.setdefault("base_url", _Given("https://unknown.invalid"))  # the type is the problem, not this
        if _name(table) in RESERVED_NAMES:
            taken = f'"/{_name(table)}" is a route of the gateway itself'
            self._problem(f"{where}.name", taken, "take another name", note)
        if "api_key" in table and "api_key_env" in table:
            self._problem(where, "both api_key and api_key_env are set", "keep one of them", note)
        elif type_ == "copilot" and ("api_key" in table or "api_key_env" in table):
            key = "api_key" if "api_key" in table else "api_key_env"
            self._problem(f"{where}.{key}", "a copilot provider has no key of its own", "users bring theirs", note)
        provider = self._read(Provider, where, table, note)
        if provider is None or provider.api_key_env is None:
            return provider
        key = self._environ.get(provider.api_key_env, "")
        try:
            return msgspec.structs.replace(provider, api_key=values.SECRET.read(key))
        except ValueError:
            found = "does not hold a key" if key else "is not set"
            remedy = f"put the provider's key into {provider.api_key_env}, or name another variable"
            self._problem(f"{where}.api_key_env", f"the variable {provider.api_key_env} {found}", remedy, note)
            return None

    def _mcp_servers(self) -> tuple[MCPServer, ...]:
        tables = self._tables("mcp_servers")
        self._check_names("mcp_servers", tables)
        return tuple(filter(None, (self._mcp_server(i, table) for i, table in enumerate(tables))))

    def _mcp_server(self, index: int, table: _Table) -> MCPServer | None:
        where, note = f"mcp_servers[{index}]", _note(table)
        if "name" not in table:
            self._problem(f"{where}.name", "it is missing", f"allowed is {_kinds(MCPServer)['name'].allowed}")
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
