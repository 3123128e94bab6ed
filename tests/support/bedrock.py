"""A stand-in for Amazon Bedrock: it checks signatures as AWS does, and answers in binary frames."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Mapping
from zlib import crc32

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from aibridge.wire import sse
from support.provider import Asked, Fields, Piece, Provider, Reply, chunked, document

REGION = "eu-central-1"
KEY_ID, SECRET = "AKIDOFTHEHARBOUR0123", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

SOURCES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
"""Variables by which the machine of a test might have credentials."""


def without_aws(monkeypatch: pytest.MonkeyPatch, home: object) -> None:
    """Let AWS' default chain find nothing, not even files in a home folder or the metadata of a cloud's machine."""
    for name in SOURCES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


class Bedrock(Provider):
    """A region's endpoint: it says what the test tells it to, where requests are signed with its key and `SECRET`."""

    def __init__(self, region: str = REGION) -> None:
        super().__init__()
        self.region = region
        self.key = KEY_ID

    def _next(self) -> Reply:
        asked = self.last
        if (asked.header("Authorization") or "").startswith("Bearer "):
            return super()._next()
        if key_of(asked) != self.key:
            return refusal(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
        if not is_signed(asked, SECRET, self.region):
            return refusal(403, "InvalidSignatureException", "The request signature we calculated does not match.")
        return super()._next()


def key_of(asked: Asked) -> str:
    """With which access key a request is signed."""
    return (asked.header("Authorization") or "").partition("Credential=")[2].partition("/")[0]


def is_signed(asked: Asked, secret: str, region: str = REGION) -> bool:
    """The signature of a request is the one that botocore finds for it."""
    authorization = asked.header("Authorization") or ""
    told = dict(part.strip().split("=", 1) for part in authorization.partition(" ")[2].split(","))
    names = told["SignedHeaders"].split(";")
    headers = {name: asked.header(name) or "" for name in names if name != "host"}
    request = AWSRequest(asked.method, f"http://{asked.header('host')}{asked.target}", headers=headers, data=asked.body)
    request.context["timestamp"] = asked.header("X-Amz-Date")
    signer = SigV4Auth(Credentials(key_of(asked), secret), "bedrock", region)
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    every = {name.lower() for name, _ in asked.headers}
    return told["Signature"] == signature and {name for name in every if name.startswith("x-amz-")} <= {*names}


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame of an AWS event stream."""
    told = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(told) + len(payload), len(told))
    body = prelude + struct.pack(">I", crc32(prelude)) + told + payload
    return body + struct.pack(">I", crc32(body))


def chunk(event: bytes) -> bytes:
    """The frame of one event, which is JSON."""
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps({"bytes": base64.b64encode(event).decode(), "p": "abcdefgh"}).encode())


def exception(kind: str, message: str) -> bytes:
    """The frame of an exception in the middle of a stream."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, json.dumps({"message": message}).encode())


def chunks(events: Iterable[bytes]) -> list[bytes]:
    """The frames of server-sent events."""
    return [chunk(sse.data_of(event)) for event in events]


def frames(*pieces: Piece, headers: Fields = ()) -> Reply:
    """An answer of frames, each piece of bytes sent on its own."""
    fields = [("Content-Type", "application/vnd.amazon.eventstream"), ("x-amzn-RequestId", "req-1"), *headers]
    return chunked(list(pieces), fields)


def answer(body: bytes) -> Reply:
    """An answer in one document."""
    return document(body, headers=[("x-amzn-RequestId", "req-1"), ("X-Amzn-Bedrock-Input-Token-Count", "12")])


def refusal(status: int, kind: str, message: str, headers: Fields = ()) -> Reply:
    """An error."""
    fields = [("x-amzn-RequestId", "req-9"), ("x-amzn-ErrorType", f"{kind}:http://internal.amazon.com/"), *headers]
    return document(json.dumps({"message": message}).encode(), status, fields)
