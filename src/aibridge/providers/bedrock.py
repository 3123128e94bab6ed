"""Amazon Bedrock.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from aibridge.errors import Fault, Kind
from aibridge.providers.credential import NO_CREDENTIAL, Credential
from aibridge.providers.interpreter import Headers, Incoming, Outgoing, RawHeaders
from aibridge.providers.provider import Provider
from aibridge.wire.bedrock import answers, requests
from aibridge.wire.bedrock.models import base_model
from aibridge.wire.content_coding import CodingError, decoded
from aibridge.wire.messages import Messages

MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"

MAX_BODY = 25_000_000
"""How long the body of a request may be, in bytes, by the API's reference."""

_EVENTS = b"application/vnd.amazon.eventstream"
_OF_MESSAGES = frozenset({"accept", "anthropic-version", "anthropic-beta", "content-encoding", "content-type"})
_JSON = [("Content-Type", "application/json"), ("Accept", "application/json")]
_UNKNOWN_KEY = frozenset({"ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId"})


class BedrockProvider(Provider):
    """Claude at Amazon Bedrock, for clients that speak Messages.

    `model` is asked for whatever a client asks for, `small_fast_model` where that is a Haiku; they are ids of models or
    of inference profiles, or ARNs. Where neither is given, a client has to name one of those itself.

    Requests are signed with `access_key` and `access_key_secret` (and `session_token`), or with what AWS' default chain
    finds, by way of `profile` or without. `api_key` is a Bedrock API key, which needs no signature. What clients bring
    as a credential is dropped, for it is none of AWS. `base_url` is for an endpoint other than the region's public one.
    """

    type = "bedrock"
    bridged = {MESSAGES: Messages()}
    passthrough = (COUNT_TOKENS,)
    probes = frozenset({"", "/", "/api/hello"})  # Claude Code asks so when it starts

    def __init__(
        self,
        base_url: str | None = None,
        *,
        region: str,
        model: str | None = None,
        small_fast_model: str | None = None,
        access_key: str | None = None,
        access_key_secret: str | None = None,
        session_token: str | None = None,
        profile: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(base_url or f"https://bedrock-runtime.{region}.amazonaws.com", **settings)
        if bool(access_key) != bool(access_key_secret):
            raise ValueError(f"provider {self.name!r} has only one of access_key and access_key_secret: give both")
        if session_token and not access_key:
            raise ValueError(f"provider {self.name!r} has a session_token, but no access_key that it belongs to")
        # Only now, since it takes its time: most gateways reach no AWS.
        from aibridge.providers.aws import AccessKey, AWSCredentials

        self.region, self.model, self.small_fast_model = region, model, small_fast_model
        configured = (
            AccessKey(access_key, access_key_secret, session_token) if access_key and access_key_secret else None
        )
        self.aws = AWSCredentials(region, configured=configured, profile=profile)
        self.signs = self.key_credential() is NO_CREDENTIAL
        """Requests are signed; those with an API key need not be."""
        self.interpreter = self

    def model_for(self, asked: str) -> str:
        """Which model at Bedrock stands for the one that a client asks for."""
        if self.small_fast_model and "haiku" in asked.lower():
            return self.small_fast_model
        return self.model or asked

    def metadata(self, model: str) -> Mapping[str, Any]:
        """The model that really answers, where it is another."""
        upstream_model = self.model_for(model)
        return {} if upstream_model == model else {"upstream_model": upstream_model}

    def credential(self, headers: Mapping[str, str]) -> Credential:
        """The gateway's own: an API key, or an access key, whose id may be told."""
        if not self.signs:
            return self.key_credential()
        key = self.aws.key
        return Credential("centralized", key.id, None) if key else NO_CREDENTIAL

    # What translates between Messages and Bedrock

    async def ready(self) -> None:
        """Find credentials, so that their id can be told; where there are none, the request that is sent says so."""
        if self.signs:
            with suppress(Fault):
                await self.aws.current()

    async def outgoing(self, path: str, headers: Headers, body: bytes) -> Outgoing:
        """The invocation that stands for a request. Raises `Fault`."""
        body = _unpacked(headers, body)
        betas = [
            beta.strip() for name, value in headers if name.lower() == "anthropic-beta" for beta in value.split(",")
        ]
        asked = requests.asked(body)
        model = self.model_for(asked.model)
        if not model.strip("."):  # it would lead to another path
            raise Fault(Kind.INVALID_REQUEST, f"there is no model {model!r} at Bedrock")
        if path == COUNT_TOKENS:
            model = base_model(model)  # which alone can be counted for
            text, operation = requests.counting(body, asked, model, betas), "count-tokens"
        else:
            text = requests.invocation(body, asked, model, betas)
            operation = "invoke-with-response-stream" if asked.stream is True else "invoke"
        url = f"{self.base_url}/model/{quote(model, safe='')}/{operation}"
        passed = [*(field for field in headers if _passes(field[0].lower())), *_JSON]
        return Outgoing(url, await self.aws.signed(url, passed, text) if self.signs else passed, text)

    def incoming(self, path: str, status: int, headers: RawHeaders) -> Incoming:
        """What makes of an answer the one that Anthropic would have given."""
        named = {name.lower(): value for name, value in headers}
        request_id = named.get(b"x-amzn-requestid", b"").decode("latin-1")
        passed = [*headers, (b"request-id", request_id.encode("latin-1"))] if request_id else headers
        without_length = [field for field in passed if field[0].lower() != b"content-length"]
        if status >= 400:
            kind = answers.error_name(named.get(b"x-amzn-errortype", b"").decode("latin-1"))
            if kind in _UNKNOWN_KEY and self.signs and self.aws.doubt():
                without_length.append((b"x-should-retry", b"true"))
            return answers.ErrorDocument(without_length, status, kind, request_id)
        if named.get(b"content-type", b"").lower().startswith(_EVENTS):
            others = [field for field in without_length if field[0].lower() != b"content-type"]
            return answers.EventFrames(self.name, [*others, (b"content-type", b"text/event-stream")], request_id)
        return answers.CountDocument(without_length) if path == COUNT_TOKENS else answers.Passing(passed)


def _passes(name: str) -> bool:
    """A client's header is of use at Bedrock; those of a signature can only be the gateway's own."""
    return name not in _OF_MESSAGES and not name.startswith("x-amz-")


def _unpacked(headers: Headers, body: bytes) -> bytes:
    coding = next((value for name, value in headers if name.lower() == "content-encoding"), "")
    try:
        plain = decoded(body, coding, MAX_BODY)
    except CodingError as error:
        raise Fault(Kind.INVALID_REQUEST, f"the request body can not be read: {error}") from error
    if plain is None:
        raise Fault(Kind.BODY_TOO_LARGE, f"the request body is longer than the {MAX_BODY} bytes that Bedrock takes")
    return plain
