r"""Characters that a database can not hold, made visible: a record is rather changed in a letter than not stored."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

AnyRecord = TypeVar("AnyRecord", bound=msgspec.Struct)


def with_visible(record: AnyRecord, *, nul: bool = False) -> AnyRecord:
    r"""The record with lone surrogates as escapes (`\ud800`); with `nul`, also NUL characters (`\u0000`)."""
    return msgspec.convert(_visible(msgspec.to_builtins(record), nul=nul), type(record))


def visible(text: str) -> str:
    r"""The text with lone surrogates as escapes (`\ud800`), and pairs as the characters that they stand for."""
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return joined.encode("utf-8", "backslashreplace").decode()


def _visible(value: Any, *, nul: bool) -> Any:
    if isinstance(value, str):
        text = visible(value)
        return text.replace("\0", "\\u0000") if nul else text
    if isinstance(value, dict):
        return {_visible(key, nul=nul): _visible(each, nul=nul) for key, each in value.items()}
    if isinstance(value, list):
        return [_visible(each, nul=nul) for each in value]
    return value
