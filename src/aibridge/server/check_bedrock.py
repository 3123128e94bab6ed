"""Whether a Bedrock provider could work: which credentials it has, and whether its models may be invoked.

A model is invoked with nothing to answer. Bedrock looks at the signature, the permission and the model before it sees
that, and then refuses it as invalid; so it can cost nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from aibridge.providers import BedrockProvider, Credential
from aibridge.providers.aws import NoCredentials
from aibridge.upstream.upstream import Upstream, UpstreamRequest
from aibridge.wire.bedrock.answers import error_name

Verdict = Literal["ok", "note", "FAIL"]

_ASKED = ("aibridge-check", "aibridge-check-haiku")
"""Models that nobody has; the settings say what stands for each."""

_PATH = "/v1/messages"
_CREDENTIALS = frozenset({401, 403})


async def look(provider: BedrockProvider, upstream: Upstream) -> tuple[Verdict, list[str]]:
    """What is found. Raises `Fault` where the endpoint is not reached."""
    models = {provider.model_for(asked): asked for asked in reversed(_ASKED)}
    if provider.signs:
        try:
            await provider.aws.current()
        except NoCredentials as error:
            return "FAIL", [error.why]
        whose = {f"credentials from {provider.aws.source}": provider.credential({})}
    elif len(provider.credentials) == 1:
        whose = {"its API key": provider.credentials[0]}
    else:
        whose = {f"its API key {credential.hint}": credential for credential in provider.credentials}
    findings = [
        await _invoke(provider, upstream, asked, credential, name)
        for name, credential in whose.items()
        for asked in reversed(models.values())
    ]
    worst = max((verdict for verdict, _ in findings), key=("ok", "note", "FAIL").index)
    return worst, list(dict.fromkeys(told for _, told in findings))


async def _invoke(
    provider: BedrockProvider, upstream: Upstream, asked: str, credential: Credential, whose: str
) -> tuple[Verdict, str]:
    model = provider.model_for(asked)
    headers = [("user-agent", "aibridge"), *provider.headers]
    if credential.header:
        headers.append(credential.header)
    body = msgspec.json.encode({"model": asked})
    answer = await upstream.send(
        UpstreamRequest(provider.name, "POST", "", headers, body, endpoint=_PATH, interpreter=provider)
    )
    try:
        kind = error_name(answer.header(b"x-amzn-errortype")) or str(answer.status)
        text = b""
        while not answer.at_end:
            text += await answer.read()
    finally:
        answer.close()
    if kind == "AccessDeniedException":
        remedy = "allow bedrock:InvokeModel for it, and ask for access to it in the console of Bedrock"
        return "FAIL", f"{whose} accepted, but may not invoke {model}: {remedy}"
    if answer.status in _CREDENTIALS:
        return "FAIL", f"{whose} refused ({kind}): see that they are valid, and the clock of this machine right"
    if answer.status == 404 or (answer.status == 400 and b"model identifier" in text):
        if model == asked:
            return "ok", f"{whose} accepted; clients name the models of Bedrock themselves, for none is configured"
        return "FAIL", f"{whose} accepted, but {provider.region} knows no {model}: see its model and small_fast_model"
    if answer.status == 400:
        return "ok", f"{whose} accepted, {model} may be invoked"
    return "note", f"but it answers {answer.status} ({kind}), so {model} is untested: see its base_url, or try again"
