"""The API dump: whole exchanges with providers, written to files for debugging.

Of each exchange there are two files, for their owner's eyes alone: the request (`.req.txt`), and the answer
(`.resp.txt`), or why there was none (`.req_error.txt`). docs/troubleshooting.md tells where they are, and what is in
them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import time
from typing import BinaryIO
from urllib.parse import urlsplit

import msgspec

from aibridge.errors import Fault
from aibridge.providers.credential import masked
from aibridge.providers.interpreter import RawHeaders
from aibridge.upstream.exchange import UpstreamRequest
from aibridge.wire.content_coding import CodingError, decoded

_log = logging.getLogger("aibridge.upstream")

MASKED = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "proxy-authenticate",
        "proxy-authorization",
        "set-cookie",
        "www-authenticate",
        "x-amz-security-token",
        "x-api-key",
        "x-auth-token",
    }
)
"""Headers of which a few characters are shown, whoever the provider is."""

MOST_UNPACKED = 64 << 20
"""How long a compressed body may become when it is unpacked to be read, in bytes; a longer one is dumped as it is."""

_LONGEST_NAME = 100  # characters of a name that clients choose: file systems take 255 bytes
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._:@+=-]")
_SCHEME = re.compile(r"(?:bearer|basic|digest|negotiate) ", re.IGNORECASE)


class Dump:
    """Writes exchanges below a folder, which is made when it is first needed.

    What can not be written harms no exchange: it is logged, once, and the dump of that exchange is left as it is.
    `secret` headers, by their lower-case names, are masked besides those that are for all providers.
    """

    def __init__(self, folder: Path, secret: Iterable[str] = ()) -> None:
        self._folder = folder
        self._masked = MASKED.union(secret)
        self._complained = False

    async def begin(self, request: UpstreamRequest) -> DumpedExchange:
        """Write a request that is about to be sent; what is returned is to follow it."""
        dumped = DumpedExchange(self, self._folder / _place(request))
        await asyncio.to_thread(dumped.asked, request)
        return dumped

    def head(self, first_line: str, headers: Iterable[tuple[str, str]], encoding: str) -> bytes:
        """The head of a request or an answer, to its blank line."""
        lines = [first_line, *(f"{name}: {self._shown(name, value)}" for name, value in headers), "", ""]
        return "\r\n".join(lines).encode(encoding, errors="replace")

    def _shown(self, name: str, value: str) -> str:
        if name.lower() not in self._masked:
            return value
        scheme = _SCHEME.match(value)
        return scheme[0] + masked(value[scheme.end() :]) if scheme else masked(value)

    def open(self, path: Path) -> BinaryIO:
        """A new file within the folder. Raises `OSError`."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in reversed(path.relative_to(self._folder).parents[:-1]):
            (self._folder / folder).mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        return open(descriptor, "wb")  # noqa: PTH123  # a descriptor has no path

    def complain(self, error: OSError) -> None:
        """Log that a dump could not be written; only the first time, for there may be many."""
        if not self._complained:
            self._complained = True
            _log.error("an exchange can not be dumped (told once): %s", error)


class DumpedExchange:
    """The files of one exchange; `stem` is what their names have in common. Follows the exchange."""

    def __init__(self, dump: Dump, stem: Path) -> None:
        self._dump, self._stem = dump, stem
        self._file: BinaryIO | None = None  # of the answer
        self._answered = False
        self._why = "the exchange was cut before an answer came: the client left, or the gateway stopped"

    def asked(self, request: UpstreamRequest) -> None:
        """Write the request."""
        self._write_whole(".req.txt", self._request_head(request) + _readable(request))

    def _request_head(self, request: UpstreamRequest) -> bytes:
        url = urlsplit(request.url)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = [("Host", url.netloc), *request.headers]
        if request.body:
            headers.append(("Content-Length", str(len(request.body))))
        return self._dump.head(f"{request.method} {target} HTTP/1.1", headers, "utf-8")

    def answered(self, status: int, reason: str, headers: RawHeaders) -> None:
        """Write the head of the answer."""
        self._answered = True
        told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        head = self._dump.head(f"HTTP/1.1 {status} {reason}", told, "latin-1")
        try:
            self._file = self._dump.open(self._path(".resp.txt"))
        except OSError as error:
            self._dump.complain(error)
        self.received(head)

    def received(self, data: bytes) -> None:
        """Write a piece of the answer, for whoever reads along."""
        if self._file is None:
            return
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            self._dump.complain(error)
            self._close()

    def failed(self, fault: Fault) -> None:
        """Remember why no answer came; one that broke off just ends."""
        self._why = fault.message

    def ended(self, *, whole: bool) -> None:
        """Be done with the files."""
        if not self._answered:
            self._write_whole(".req_error.txt", self._why.encode() + b"\n")
        self._close()

    def _write_whole(self, suffix: str, content: bytes) -> None:
        try:
            with self._dump.open(self._path(suffix)) as file:
                file.write(content)
        except OSError as error:
            self._dump.complain(error)

    def _path(self, suffix: str) -> Path:
        return self._stem.with_name(self._stem.name + suffix)

    def _close(self) -> None:
        if self._file:
            with suppress(OSError):  # of what could not be written before; the file is closed all the same
                self._file.close()
            self._file = None


def _place(request: UpstreamRequest) -> Path:
    """Where an exchange is dumped, without a suffix."""
    moment = int(time() * 1000)
    if request.model is None:
        path = _name(request.endpoint.strip("/"))
        return Path(request.provider, "passthrough", f"{moment}-{path}-{secrets.token_hex(2)}")
    turn = f"-{request.turn}" if request.turn > 1 else ""
    return Path(request.provider, _name(request.model), f"{moment}-{request.exchange_id}{turn}")


def _name(text: str) -> str:
    """A text that a client chose as the name of a file: nothing in it leads elsewhere."""
    name = _NOT_IN_NAMES.sub("-", text)[:_LONGEST_NAME]
    return name if name.strip(".") else "-"


def _readable(request: UpstreamRequest) -> bytes:
    """The body, unpacked, and laid out where it is JSON; numbers, texts and the order of keys stay as they are."""
    body = request.body
    coding = next((value for name, value in request.headers if name.lower() == "content-encoding"), "")
    with suppress(CodingError):
        body = decoded(body, coding, MOST_UNPACKED) or body
    try:
        return msgspec.json.format(body)
    except (msgspec.DecodeError, RecursionError):
        return body
