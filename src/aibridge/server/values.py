"""What the value of one setting may be: as a file of settings has it (TOML), and as text from the environment.

A `Kind` reads one sort of value. The settings name their kinds in their annotations (`settings.py`), so what is
allowed, how it is read and how it is told in an error stand in one place.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from aibridge.errors import SettingsError

T = TypeVar("T")


class Secret:
    """A text that is shown to nobody: only `reveal` gives it, so no log, error or repr can hold it by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret('***')"


def shown(value: object) -> str:
    """A value as an error tells it: short, and in the way that it is written in a file of settings."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= 80 else f'{text[:78]}…"'
        case _:
            return sort_of(value)


def sort_of(value: object) -> str:
    """What sort of value it is, without the value: all that an error may tell of what may be secret."""
    match value:
        case str():
            return "a text (not shown)"
        case Mapping():
            return "a table"
        case list():
            return "a list"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case _:
            return "a date or time"


def shown_url(value: object) -> str:
    """A URL without what may be secret in it: user, password, query and fragment; also where it is no valid URL."""
    if not isinstance(value, str):
        return shown(value)
    head, at, rest = value.rpartition("@")
    if at:
        scheme = re.match(r"[a-z0-9+.-]+://", head, re.IGNORECASE)
        value = f"{scheme[0] if scheme else ''}***@{rest}"
    return shown(re.sub(r"([?#]).*", r"\1***", value, flags=re.DOTALL))


def parsed(text: str) -> Any:
    """The list or table that a text from the environment holds, as JSON or as a TOML value; else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _same(text: str) -> Any:
    return text


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One sort of value.

    `read` takes the value from a file and raises ValueError where it is not allowed, with a reason where `allowed`
    alone does not make it plain. `from_text` makes of a text from the environment what a file would hold.
    """

    allowed: str
    read: Callable[[Any], T]
    from_text: Callable[[str], Any] = _same
    shown: Callable[[object], str] = shown


def _require(condition: object, reason: str = "") -> None:
    if not condition:
        raise ValueError(reason)


def text(allowed: str, pattern: str) -> Kind[str]:
    """A text that the pattern matches as a whole."""

    def read(value: Any) -> str:
        _require(isinstance(value, str) and re.fullmatch(pattern, value))
        return str(value)

    return Kind(allowed, read)


def one_of(*choices: str, later: tuple[str, ...] = ()) -> Kind[str]:
    """One of a few words; those in `later` are known, but not supported by this version."""

    def read(value: Any) -> str:
        _require(value not in later, "this version does not support it yet")
        _require(value in choices)
        return str(value)

    quoted = [f'"{choice}"' for choice in choices]
    return Kind(f"{', '.join(quoted[:-1])} or {quoted[-1]}", read)


def whole_number(least: int, most: int | None = None) -> Kind[int]:
    """A whole number within bounds, both included."""

    def read(value: Any) -> int:
        _require(isinstance(value, int) and not isinstance(value, bool))
        _require(least <= value and (most is None or value <= most))
        return int(value)

    def from_text(text: str) -> Any:
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()) else text

    bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
    return Kind(f"a whole number {bounds}", read, from_text)


def _boolean(value: Any) -> bool:
    _require(isinstance(value, bool))
    return bool(value)


def _boolean_from_text(text: str) -> Any:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    return words.get(text.strip().lower(), text)


BOOLEAN = Kind("true or false", _boolean, _boolean_from_text)

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PART_OF_DURATION = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")


def seconds(value: Any) -> float:
    """The seconds of a duration such as "30s", "1h30m" or "500ms", or of a plain number of seconds.

    ValueError is raised where it is neither.
    """
    if isinstance(value, str):
        written = value.strip()
        if re.fullmatch(_NUMBER, written):
            return float(written)
        _require(re.fullmatch(rf"(?:{_PART_OF_DURATION.pattern})+", written))
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART_OF_DURATION.findall(written))
    _require(isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and math.isfinite(value))
    return float(value)


def duration(*, zero: bool) -> Kind[float]:
    """A duration, held in seconds; `zero` says whether it may be none at all."""

    def read(value: Any) -> float:
        result = seconds(value)
        _require(zero or result > 0)
        return result

    return Kind(f'a duration such as "30s", "10m", "1h30m" or "500ms", {"or 0" if zero else "longer than 0"}', read)


def _ratio(value: Any) -> float:
    if isinstance(value, str):
        _require(re.fullmatch(_NUMBER, value.strip()))
        value = float(value)
    _require(isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1)
    return float(value)


RATIO = Kind("a number from 0 to 1", _ratio)

_BYTES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def size(*, least: int = 1) -> Kind[int]:
    """A size, held in bytes."""

    def read(value: Any) -> int:
        if isinstance(value, str):
            written = re.fullmatch(r"([0-9]{1,15})\s*(B|kB|MB|GB|KiB|MiB|GiB|)", value.strip())
            if written is None:
                raise ValueError
            value = int(written[1]) * _BYTES[written[2]]
        _require(isinstance(value, int) and not isinstance(value, bool) and value >= least)
        return int(value)

    bound = "more than 0" if least == 1 else f"at least {least:,}"
    return Kind(f'a size such as "32MiB" or "512KiB", or a number of bytes, {bound}', read)


SIZE = size()


def _path(value: Any) -> Path:
    _require(isinstance(value, str) and value.strip() and "\0" not in value)
    return Path(value)


PATH = Kind("the path of a folder", _path)


def _path_or_none(value: Any) -> Path | None:
    return None if value == "" else _path(value)


PATH_OR_NONE = Kind('the path of a folder, or "" for none', _path_or_none)


FILE_OR_NONE = Kind('the path of a file, or "" for none', _path_or_none)


def _secret(value: Any) -> Secret:
    _require(isinstance(value, str) and re.fullmatch(r"[!-~]+", value.strip()))
    return Secret(value.strip())


SECRET = Kind("a text of visible ASCII characters, not empty", _secret, shown=sort_of)

# Shown only where it can be nothing but a name: a key put here by mistake must not be printed.
VARIABLE = Kind(
    'the name of an environment variable, such as "OPENAI_API_KEY"',
    text("", r"[A-Z_][A-Z0-9_]*").read,
    shown=sort_of,
)


def _secrets(value: Any) -> tuple[Secret, ...]:
    _require(isinstance(value, list) and value)
    return tuple(_secret(each) for each in value)


SECRETS = Kind("a list of texts of visible ASCII characters, none of them empty", _secrets, parsed, sort_of)


def texts(allowed: str, pattern: str, shown: Callable[[object], str] = shown) -> Kind[tuple[str, ...]]:
    """A list of texts, one at least, of which the pattern matches each as a whole."""
    one = text(allowed, pattern)

    def read(value: Any) -> tuple[str, ...]:
        _require(isinstance(value, list) and value)
        return tuple(one.read(each) for each in value)

    return Kind(allowed, read, parsed, shown)


VARIABLES = texts('a list of names of environment variables, such as ["KEY_A", "KEY_B"]', r"[A-Z_][A-Z0-9_]*", sort_of)


def check_http_url(value: Any, *, query: bool) -> None:
    """Raise ValueError with the reason unless it is an http(s) URL with a host, without credentials or a fragment."""
    _require(isinstance(value, str))
    _require(re.fullmatch(r"[!-~]+", value), "it has spaces or characters that must be percent-encoded")
    try:
        url = urlsplit(value)
        has_host = bool(url.hostname) and url.port != 0
    except ValueError as fault:
        raise ValueError("its host or port is malformed") from fault
    _require(url.scheme in ("http", "https"), "it does not begin with http:// or https://")
    _require(has_host, "it has no host")
    _require("@" not in url.netloc, "it holds credentials")
    _require(query or "?" not in value, "it has a query")
    _require("#" not in value, "it has a fragment")


def _proxy(value: Any) -> str:
    _require(isinstance(value, str))
    url = value if "://" in value or not value else f"http://{value}"
    if url:
        _require(re.fullmatch(r"http://[!-~]+", url))
        _require(urlsplit(url).hostname, "it has no host")
    return url


PROXY = Kind('an http URL, which may hold credentials, or "" for none', _proxy, shown=shown_url)


def _base_url(value: Any) -> str:
    check_http_url(value, query=False)
    return str(value).rstrip("/")


BASE_URL = Kind("an http or https URL with a host, without credentials, query or fragment", _base_url, shown=shown_url)


def _server_url(value: Any) -> str:
    check_http_url(value, query=True)
    return str(value)


SERVER_URL = Kind("an http or https URL with a host, without credentials or fragment", _server_url, shown=shown_url)


SERVER_URL_OR_NONE = Kind(
    f'{SERVER_URL.allowed}, or "" for none', lambda value: value and _server_url(value), shown=shown_url
)


def _database_url(value: Any) -> str:
    _require(isinstance(value, str))
    if re.match(r"postgres(ql)?:", value):
        return _postgresql_url(value)
    _require(value.startswith("sqlite:"))
    _require(value.startswith("sqlite:///") and len(value) > len("sqlite:///"), "a path follows three slashes")
    _require(not re.search(r"[?#\0]|/$|^sqlite:///:memory:$", value), "it is not the plain path of a file")
    return str(value)


def _postgresql_url(value: str) -> str:
    _require(re.fullmatch(r"[!-~]+", value), "it has spaces or characters that must be percent-encoded")
    try:
        url = urlsplit(value)
        named = bool(url.netloc or url.query) and len(url.path) > 1
    except ValueError as fault:
        raise ValueError("its host is malformed") from fault
    _require(value.startswith(("postgresql://", "postgres://")), "two slashes follow the scheme")
    _require(named, "it names no server, or no database")
    _require(not url.fragment, "it has a fragment: # must be percent-encoded")
    return value


DATABASE_URL = Kind(
    '"sqlite:///records.db" for a file in the working directory, "sqlite:////var/lib/records.db" for any other, '
    'or "postgresql://user:password@host/database"',
    _database_url,
    shown=shown_url,
)


def _regular_expression(value: Any) -> str:
    _require(isinstance(value, str))
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as fault:
        raise ValueError(str(fault)) from fault
    return str(value)


REGULAR_EXPRESSION = Kind('a regular expression, or "" for none', _regular_expression)


def _patterns(value: Any) -> tuple[str, ...]:
    _require(isinstance(value, list) and all(isinstance(each, str) and each for each in value))
    if value:
        from aibridge.recording.secrets import KnownSecrets

        try:
            KnownSecrets(value)
        except SettingsError as fault:
            raise ValueError(str(fault)) from fault
    return tuple(value)


PATTERNS = Kind('a list of regular expressions (RE2), such as ["ACME-[0-9]{6}"]', _patterns, parsed)


def _command(value: Any) -> tuple[str, ...]:
    _require(isinstance(value, list) and value and all(isinstance(part, str) and "\0" not in part for part in value))
    _require(value[0].strip())
    return tuple(value)


COMMAND = Kind('a list of texts, such as ["npx", "-y", "some-server"]', _command, parsed, sort_of)


def _headers(value: Any) -> dict[str, Secret]:
    _require(isinstance(value, dict))
    for name, content in value.items():
        _require(re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name), "a name is not that of a header")
        _require(isinstance(content, str) and re.fullmatch(r"[\t -~]*", content), "a value is not a text of one line")
    return {name: Secret(content) for name, content in value.items()}


def _query(value: Any) -> dict[str, str]:
    _require(isinstance(value, dict))
    _require(all(name and isinstance(content, str) for name, content in value.items()), "a value is not a text")
    return dict(value)


QUERY = Kind('a table of names and texts, such as { api-version = "2026-01-01" }', _query, parsed, sort_of)


def _environment(value: Any) -> dict[str, Secret]:
    _require(isinstance(value, dict))
    for name, content in value.items():
        _require(re.fullmatch(r"[^=\0]+", name), "a name is not that of a variable")
        _require(isinstance(content, str) and "\0" not in content, "a value is not a text")
    return {name: Secret(content) for name, content in value.items()}


ENVIRONMENT = Kind('a table of names and values of variables, such as { API_KEY = "…" }', _environment, parsed, sort_of)

HEADERS = Kind('a table of header names and values, such as { Authorization = "…" }', _headers, parsed, sort_of)

HEADER_NAME = text("the name of a header", r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _aliases(value: Any) -> dict[str, str | dict[str, str]]:
    _require(isinstance(value, dict))
    for alias in value.values():
        told = alias.values() if isinstance(alias, dict) else [alias]
        _require(told and all(isinstance(name, str) and name for name in told), "the name of a model is not a text")
    return dict(value)


ALIASES = Kind(
    'a table of models\' names and theirs upstream, at all providers or by provider, such as { fast = "gpt-5.4-nano" }',
    _aliases,
    parsed,
)

MODELS = texts('a list of names or patterns of models, such as ["claude-*"]', r"\S+")


def _conditions(value: Any) -> dict[str, tuple[str, ...]]:
    _require(isinstance(value, dict))
    return {name: MODELS.read(patterns) for name, patterns in value.items()}


CONDITIONS = Kind(
    'a table of providers and lists of names or patterns of models, such as { local = ["gpt-oss-*"] }',
    _conditions,
    parsed,
)

ANY_TEXT = text("a text that is not empty", r"[^\0]*\S[^\0]*")
