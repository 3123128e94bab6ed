"""A body is edited without being encoded anew: what an edit does not mean, it does not touch."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.wire.json_bytes import (
    decode,
    edit,
    insert_first,
    last_place,
    member_spans,
    replace_member,
    set_member,
    without_member,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["stream", "stream_options", "model", "", 'a"b', "ü", "\U0001f600"])
pairs = st.lists(st.tuples(names, values), max_size=6)
spaces = st.sampled_from(["", " ", "\n", "\r\n\t "])


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """JSON objects as clients may write them: with any white space, repeated members, escapes or none."""
    escaped = draw(st.booleans())

    def written(value: Any) -> str:
        return draw(spaces) + json.dumps(value, ensure_ascii=escaped) + draw(spaces)

    members = ",".join(f"{written(name)}:{written(value)}" for name, value in draw(pairs))
    return f"{draw(spaces)}{{{draw(spaces)}{members}}}{draw(spaces)}".encode(errors="surrogatepass")


@given(objects())
def test_members_are_found_where_json_finds_them(text: bytes) -> None:
    found = {name: json.loads(text[begin:end]) for name, (begin, end) in member_spans(text).items()}
    assert found == json.loads(text)


@given(objects(), st.sampled_from(["stream", "stream_options", "new"]), values)
def test_a_member_is_set_and_no_other_is_changed(text: bytes, name: str, value: Any) -> None:
    edited = set_member(text, name, json.dumps(value).encode())

    assert json.loads(edited) == json.loads(text) | {name: value}
    begin, end = member_spans(edited)[name]
    before = member_spans(text).get(name)
    if before:
        assert (edited[:begin], edited[end:]) == (text[: before[0]], text[before[1] :])
    else:
        added = json.dumps(name).encode() + b":"
        assert edited[:begin].removesuffix(added) + edited[end:].removeprefix(b"," * bool(json.loads(text))) == text


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        (b"{}", b'{"a":1}'),
        (b" { } ", b' {"a":1 } '),
        (b'{"b": 2}', b'{"a":1,"b": 2}'),
        (b'{"a" : 0 , "b":[{"a":7}]}', b'{"a" : 1 , "b":[{"a":7}]}'),
        (b'{"a":5,"a":6}', b'{"a":5,"a":1}'),
        (b'{"a":5,"a":5}', b'{"a":5,"a":1}'),
        (b'{"a":56,"a":5}', b'{"a":56,"a":1}'),
        (b'{"\\u0061":0}', b'{"\\u0061":1}'),
        (b'{"b":"{\\"a\\":0}"}', b'{"a":1,"b":"{\\"a\\":0}"}'),
        (b'{"b":' + b"9" * 5000 + b"}", b'{"a":1,"b":' + b"9" * 5000 + b"}"),
    ],
)
def test_setting_a_member(text: bytes, edited: bytes) -> None:
    assert set_member(text, "a", b"1") == edited


names_and_values = st.dictionaries(
    st.sampled_from(["stream", "stream_options", "model", "new"]), st.none() | values.map(lambda value: [value])
)


@given(objects(), names_and_values)
def test_several_members_are_set_and_removed_at_once(text: bytes, changes: dict[str, list[Any] | None]) -> None:
    written = {name: json.dumps(value[0]).encode() if value else None for name, value in changes.items()}
    edited = edit(text, written)

    due = json.loads(text) | {name: value[0] for name, value in changes.items() if value}
    assert json.loads(edited) == {name: value for name, value in due.items() if changes.get(name, True)}
    untouched = {name: span for name, span in member_spans(text).items() if name not in changes}
    after = member_spans(edited)
    assert all(text[begin:end] == edited[slice(*after[name])] for name, (begin, end) in untouched.items())


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        (b"{}", b"{}"),
        (b'{ "a": 1 }', b"{ }"),
        (b'{ "a": 1 , "b": 2 }', b'{ "b": 2 }'),
        (b'{ "b": 2 , "a": 1 }', b'{ "b": 2 }'),
        (b'{"c":0, "a": 1, "b": 2}', b'{"c":0, "b": 2}'),
        (b'{"a":1,"a":2,"b":3,"a":4}', b'{"b":3}'),
    ],
)
def test_removing_a_member(text: bytes, edited: bytes) -> None:
    assert without_member(text, "a") == edited


@pytest.mark.parametrize(
    ("array", "first", "last"),
    [
        (b"[]", b"[1,2]", b"[1,2]"),
        (b" [ ] ", b" [1,2 ] ", b" [ 1,2] "),
        (b"[ 0 ]", b"[1,2, 0 ]", b"[ 0 ,1,2]"),
        (b"[[]]", b"[1,2,[]]", b"[[],1,2]"),
        (b'["]"]', b'[1,2,"]"]', b'["]",1,2]'),
    ],
)
def test_elements_are_put_before_or_after_those_of_an_array(array: bytes, first: bytes, last: bytes) -> None:
    assert insert_first(array, b"1,2") == first
    given = b'{"a":[0],"b":%b,"c":[3]}' % array
    begin = given.index(array)
    at, added = last_place(given, begin, begin + len(array), b"1,2")
    assert given[:at] + added + given[at:] == b'{"a":[0],"b":%b,"c":[3]}' % last


@pytest.mark.parametrize(
    "text",
    [
        b'{"n":5,"a":1}',
        b'{"a":{"n":5},"n":5}',
        b'{"a":{"n":5},"n" : 5}',
        b'{"a":"\\"n\\":5","n":5}',
        b'{"a":"n","n":5}',
        b'{"n":5}',
        b'{"n":57}',
        b'{"n":5.0}',
        b'{"a":[5]}',
    ],
)
def test_a_member_that_is_known_is_replaced_as_any_other_is_set(text: bytes) -> None:
    assert replace_member(text, "n", b"5", b"6") == set_member(text, "n", b"6")


_texts: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(list[str])


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (b'["cut \\ud83d"]', "cut \ufffd"),
        (b'["cut \\uDE00 here"]', "cut \ufffd here"),
        (b'["\\ud83d\\ude00"]', "\U0001f600"),
        (b'["\\ud83d\\ud83d\\ude00"]', "\ufffd\U0001f600"),
        (b'["\\\\ud83d \\ud83d"]', "\\ud83d \ufffd"),
        (b'["not UTF-8: \xff"]', "not UTF-8: \ufffd"),
    ],
)
def test_half_characters_are_read_as_replacement_characters(text: bytes, read: str) -> None:
    assert decode(_texts, text) == [read]


@pytest.mark.parametrize("text", [b"", b"[", b'["\\ud83d"', b"\xff", b"[5]", b'["a" \xff]'])
def test_what_is_no_such_json_is_told(text: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(_texts, text)
