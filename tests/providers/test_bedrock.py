"""A Bedrock provider: which model answers, and what it takes to be one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from aibridge import BedrockProvider
from aibridge.errors import SettingsError
from aibridge.server.gateway import provider_of
from aibridge.server.settings import Provider as Settings
from support.bedrock import KEY_ID, REGION, SECRET

LARGE, SMALL = "eu.anthropic.claude-opus-4-6-v1", "eu.anthropic.claude-haiku-4-5-20251001-v1:0"


@pytest.mark.parametrize(
    ("configured", "asked", "model"),
    [
        ((LARGE, SMALL), "claude-opus-4-6", LARGE),
        ((LARGE, SMALL), "claude-3-5-haiku-latest", SMALL),
        ((LARGE, SMALL), "Claude-Haiku", SMALL),
        ((LARGE, None), "claude-haiku-4-5", LARGE),
        ((None, SMALL), "anthropic.claude-opus-4-6-v1", "anthropic.claude-opus-4-6-v1"),
        ((None, None), SMALL, SMALL),
    ],
)
def test_which_model_answers(configured: tuple[str | None, str | None], asked: str, model: str) -> None:
    large, small = configured
    provider = BedrockProvider(region=REGION, model=large, small_fast_model=small)
    assert provider.model_for(asked) == model
    assert provider.metadata(asked) == ({} if asked == model else {"upstream_model": model})


def test_where_it_is() -> None:
    assert BedrockProvider(region=REGION).base_url == f"https://bedrock-runtime.{REGION}.amazonaws.com"
    assert BedrockProvider("https://vpce.example/", region=REGION).base_url == "https://vpce.example"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"access_key": KEY_ID}, "only one of access_key and access_key_secret"),
        ({"access_key_secret": SECRET}, "only one of access_key and access_key_secret"),
        ({"session_token": "t"}, "no access_key that it belongs to"),
    ],
)
def test_half_a_credential_is_none(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        BedrockProvider(region=REGION, **settings)


def test_what_may_be_told_of_its_credential() -> None:
    provider = BedrockProvider(region=REGION, access_key=KEY_ID, access_key_secret=SECRET)
    credential = provider.credential({"x-api-key": "sk-ant-of-ada", "authorization": "Bearer sk-ant-of-ada"})
    assert (credential.kind, credential.hint, credential.header) == ("centralized", "AKID...0123", None)
    assert SECRET not in repr(provider) + repr(credential)


def test_nothing_of_aws_is_loaded_where_it_is_not_used() -> None:
    program = (
        "import sys; from aibridge.server.gateway import Gateway; from aibridge.server.check import check; "
        "from aibridge import BedrockProvider; print('botocore' in sys.modules); "
        "BedrockProvider(region='us-east-1'); print('botocore' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "True"]


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "aibridge.providers.aws", raising=False)
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    settings = Settings(type="bedrock", name="bedrock", base_url="https://h", region=REGION)
    with pytest.raises(SettingsError, match=r"pip install 'aibridge\[bedrock\]'"):
        provider_of(settings)
