"""The settings of the gateway: what there is to set.

Each setting is a field whose annotation names the kind of its value (`values.py`); `loading.py` reads them.
"""

from __future__ import annotations

import functools
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from aibridge.server import values
from aibridge.server.values import Kind, Secret, duration, one_of, text, whole_number

_NAME = text('lower-case letters and digits, with single "-" between them', r"[a-z0-9]+(-[a-z0-9]+)*")


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One table of settings. Its repr holds no secret: not a key, and not what a URL may carry."""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={self._shown(name, kind)}" for name, kind in kinds(type(self)).items())
        return f"{type(self).__name__}({fields})"

    def _shown(self, name: str, kind: Kind[Any]) -> str:
        value = getattr(self, name)
        if value and kind.shown is values.sort_of and kind not in (values.VARIABLE, values.VARIABLES):
            return "***"
        if value and kind.shown is values.shown_url:
            return values.shown_url(value)
        return repr(value)


@functools.cache
def kinds(section: type[Section]) -> dict[str, Kind[Any]]:
    """The settings of a section, by name, each with its kind."""
    hints = typing.get_type_hints(section, include_extras=True)
    return {name: hints[name].__metadata__[0] for name in section.__struct_fields__}


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
    fsync: Annotated[Literal["always", "interval", "off"], one_of("always", "interval", "off")] = "interval"
    """When the journal is brought to the disk: before a record counts as safe, soon after, or when the kernel likes."""
    fsync_interval: Annotated[float, duration(zero=False)] = 0.1
    """Seconds within which that is, with `interval`."""
    max_journal_size: Annotated[int, values.size(least=16 * 2**20)] = 4 * 2**30
    """Bytes that the files in `journal_dir` may take up before the journal counts as full."""


class Recording(Section, frozen=True, kw_only=True):
    """What becomes of contents (prompts, tool arguments, thoughts, errors' texts) before they are recorded."""

    contents: Annotated[bool, values.BOOLEAN] = True
    """Whether they are recorded at all; each provider has a say of its own."""
    redactor: Annotated[str, text("none, secrets, or package.module:name", r"none|secrets|[\w.]+:\w+")] = "none"
    """What sees them first: nothing, the built-in redactor, or a callable (see `aibridge.recording.contents`)."""
    redactor_patterns: Annotated[tuple[str, ...], values.PATTERNS] = ()
    """What else the built-in redactor masks."""
    redactor_timeout: Annotated[float, duration(zero=False)] = 2.0
    """Seconds for the records that are written together; what takes longer is recorded without contents."""


class Retention(Section, frozen=True, kw_only=True):
    """How long records are kept, in seconds; 0 keeps them for ever."""

    contents: Annotated[float, duration(zero=True)] = 0.0
    """Prompts, tool arguments, thoughts, errors' texts."""
    figures: Annotated[float, duration(zero=True)] = 0.0
    """Everything, contents too."""


class Audit(Section, frozen=True, kw_only=True):
    """The audit trail beside the store: files, and where their lines are sent on."""

    dir: Annotated[Path | None, values.PATH_OR_NONE] = None
    """Without a folder there is no trail."""
    contents: Annotated[bool, values.BOOLEAN] = False
    """Whether prompts, tool arguments, thoughts and errors' texts are in it."""
    max_file_size: Annotated[int, values.SIZE] = 64 * 2**20
    """Bytes from which on a file is followed by another."""
    keep: Annotated[float, duration(zero=True)] = 0.0
    """Seconds after which a file is removed once it is sent; 0 keeps all."""
    otlp_endpoint: Annotated[str, values.SERVER_URL_OR_NONE] = ""
    """Of a collector that takes logs by OTLP over HTTP; without one, nothing is sent."""
    otlp_headers: Annotated[dict[str, Secret], values.HEADERS] = {}
    """Sent to the collector."""


class Auth(Section, frozen=True, kw_only=True):
    """How the gateway learns who asks."""

    mode: Annotated[Literal["none", "header"], one_of("none", "header", later=("keys", "jwt"))] = "header"
    """`none`: everybody is `anonymous`. `header`: a trusted proxy in front names the actor."""
    header: Annotated[str, values.HEADER_NAME] = "X-User-ID"


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
    whole_timeout: Annotated[float, duration(zero=True)] = 1200.0
    """From sending a request to the end of an answer that is no event stream; 0 for any length."""
    whole_stream_timeout: Annotated[float, duration(zero=True)] = 0.0
    """The same of one that is."""
    keepalive_interval: Annotated[float, duration(zero=True)] = 15.0
    """How long an upstream may be silent before the client of a stream gets a keep-alive; 0 sends none."""
    http_proxy: Annotated[str, values.PROXY] = ""
    https_proxy: Annotated[str, values.PROXY] = ""
    """By which providers with an `http` or `https` URL are reached, both by HTTP."""
    no_proxy: Annotated[str, text("a text of one line", r"[^\0\r\n]*")] = ""
    """Which hosts are reached without: names, addresses and networks, separated by commas."""
    ca_file: Annotated[Path | None, values.FILE_OR_NONE] = None
    """Certificates of authorities that are trusted besides those of the system."""
    max_connections_per_host: Annotated[int, whole_number(0)] = 0
    """0 for any number."""
    dns_ttl: Annotated[float, duration(zero=False)] = 30.0
    """How long a host is taken to be where it was found."""


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


class Tracing(Section, frozen=True, kw_only=True):
    """Where OpenTelemetry's spans are sent."""

    endpoint: Annotated[str, values.SERVER_URL_OR_NONE] = ""
    """Of a collector that takes OTLP; without one, nothing is traced."""
    protocol: Annotated[Literal["http", "grpc"], one_of("http", "grpc")] = "http"
    headers: Annotated[dict[str, Secret], values.HEADERS] = {}
    """Sent to the collector."""
    sample_ratio: Annotated[float, values.RATIO] = 1.0
    """The part of all traces that is kept, where the client has not decided."""
    contents: Annotated[bool, values.BOOLEAN] = False
    """Whether prompts, thoughts, and what tools were asked and have answered are in the spans."""
    propagate: Annotated[bool, values.BOOLEAN] = False
    """Whether providers are told which trace a request belongs to."""


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
        Literal["anthropic", "openai", "copilot", "bedrock"],
        one_of("anthropic", "openai", "copilot", "bedrock"),
    ]
    name: Annotated[str, _NAME]
    """Unique; also the prefix of its routes."""
    base_url: Annotated[str, values.BASE_URL]
    """Without a slash at its end."""
    api_key: Annotated[Secret | None, values.SECRET] = None
    """The configured key, wherever it was read from; None where every client has to bring its own."""
    api_key_env: Annotated[str | None, values.VARIABLE] = None
    """The variable that `api_key` was read from, if it was."""
    api_keys: Annotated[tuple[Secret, ...] | None, values.SECRETS] = None
    """Several keys in its place; the next is taken where one is limited or refused."""
    api_key_envs: Annotated[tuple[str, ...] | None, values.VARIABLES] = None
    """The variables that `api_keys` were read from, if they were."""
    key_header: Annotated[str | None, values.HEADER_NAME] = None
    """The header that carries a key, where it is another than the type's usual one."""
    headers: Annotated[dict[str, Secret], values.HEADERS] = {}
    """Sent with every request."""
    query: Annotated[dict[str, str], values.QUERY] = {}
    """The same in the query of the URL."""
    ask_for_usage: Annotated[bool, values.BOOLEAN] = True
    """Whether a stream of Chat Completions is made to tell its usage; of openai providers alone."""
    max_retries: Annotated[int, whole_number(0, 100)] = 2
    send_actor_headers: Annotated[bool, values.BOOLEAN] = False
    byok: Annotated[bool, values.BOOLEAN] = True
    """False: what the client sends as its credential is dropped."""
    first_byte_timeout: Annotated[float | None, duration(zero=False)] = None
    idle_timeout: Annotated[float | None, duration(zero=False)] = None
    whole_timeout: Annotated[float | None, duration(zero=True)] = None
    whole_stream_timeout: Annotated[float | None, duration(zero=True)] = None
    """In place of those of `[upstream]`."""
    ca_file: Annotated[Path | None, values.FILE_OR_NONE] = None
    """Certificates of authorities that are trusted with this provider only."""
    client_cert: Annotated[Path | None, values.FILE_OR_NONE] = None
    """By which the gateway shows the provider who it is (mutual TLS)."""
    client_key: Annotated[Path | None, values.FILE_OR_NONE] = None
    """Of that certificate; None where its file holds the key too."""
    record_contents: Annotated[bool, values.BOOLEAN] = True
    """Whether the contents of its exchanges are recorded, where contents are at all."""
    region: Annotated[
        str | None, text('the name of an AWS region, such as "us-east-1"', r"[a-z]{2,}(-[a-z]+)+-[0-9]+")
    ] = None
    """This and what follows is of Bedrock alone."""
    model: Annotated[str | None, values.ANY_TEXT] = None
    """The id or ARN that is asked for, whatever a client asks for."""
    small_fast_model: Annotated[str | None, values.ANY_TEXT] = None
    """The same for clients that ask for a Haiku."""
    access_key: Annotated[Secret | None, values.SECRET] = None
    """The id of an access key; None to find credentials as AWS' own clients do."""
    access_key_secret: Annotated[Secret | None, values.SECRET] = None
    session_token: Annotated[Secret | None, values.SECRET] = None
    profile: Annotated[str | None, values.ANY_TEXT] = None
    """Of AWS' shared files, where it is not the default one."""


class Route(Section, frozen=True, kw_only=True):
    """Providers of one dialect that are served as one, each where those before it fail."""

    name: Annotated[str, _NAME]
    """Unique among providers and routes; also the prefix of its routes."""
    providers: Annotated[tuple[str, ...], values.texts('a list of providers\' names, such as ["anthropic"]', r"\S+")]
    """In the order in which they are asked."""
    allow: Annotated[tuple[str, ...] | None, values.MODELS] = None
    """The models that clients may ask for; None for all."""
    when: Annotated[dict[str, tuple[str, ...]], values.CONDITIONS] = {}
    """For which models a provider is asked; one that is not here is asked for all."""
    aliases: Annotated[dict[str, str | dict[str, str]], values.ALIASES] = {}
    """By which names providers know the models that clients call so."""


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
    recording: Recording = Recording()
    retention: Retention = Retention()
    audit: Audit = Audit()
    auth: Auth = Auth()
    metrics: Metrics = Metrics()
    upstream: Upstream = Upstream()
    breaker: Breaker = Breaker()
    tracing: Tracing = Tracing()
    log: Log = Log()
    tools: Tools = Tools()
    providers: tuple[Provider, ...] = ()
    routes: tuple[Route, ...] = ()
    mcp_servers: tuple[MCPServer, ...] = ()
