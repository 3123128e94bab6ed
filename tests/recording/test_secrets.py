"""The built-in redactor: what it masks, what it leaves as it is, and that nothing stalls it."""

from __future__ import annotations

import json
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.errors import SettingsError
from aibridge.recording.secrets import KnownSecrets

from .samples import texts

FILLING = string.ascii_letters + string.digits  # put in here, so that no scanner takes these samples for real keys

KEYS = [
    f"sk-ant-api03-{FILLING}",
    f"sk-proj-{FILLING}",
    f"gsk_{FILLING}",
    f"AKIA{'IOSFODNN7EXAMPLE'}",
    f"ABSK{FILLING}+/==",
    f"bedrock-api-key-{FILLING}==",
    f"AIza{FILLING[:35]}",
    f"ghp_{FILLING[:36]}",
    f"github_pat_{FILLING}",
    f"glpat-{FILLING[:20]}",
    f"xoxb-1234567890-{FILLING[:24]}",
    f"sk_live_{FILLING[:24]}",
    f"npm_{FILLING[:36]}",
    f"hf_{FILLING[:34]}",
    f"aib_{FILLING[:40]}",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.{FILLING[:43]}",
]

mask = KnownSecrets()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("around", ["{}", "export KEY={} and go on", 'key = "{}"', "before\n{}\nafter", "<b>{}</b>"])
def test_keys(key: str, around: str) -> None:
    assert mask(around.format(key)) == around.format("[redacted: key]")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("beside", ["\n", "\t", "<", '"', ""])
def test_keys_in_arguments_which_are_json_and_stay_json(key: str, beside: str) -> None:
    written = json.dumps({"command": f"{beside}{key}{beside}"}).replace("<", r"\u003c")
    assert json.loads(mask(written)) == {"command": f"{beside}[redacted: key]{beside}"}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "aws_secret_access_key = [redacted: AWS secret]",
        ),
        (
            r'{"SecretAccessKey": "wJalrXUtnFEMI\/K7MDENG\/bPxRfiCYEXAMPLEKEY"}',
            '{"SecretAccessKey": "[redacted: AWS secret]"}',
        ),
        ("curl -H 'Authorization: Bearer abc.def-ghi_123456'", "curl -H 'Authorization: Bearer [redacted: token]'"),
        ('{"authorization": "Basic YWRhOmxvdmVsYWNl"}', '{"authorization": "Basic [redacted: token]"}'),
        ("postgresql://ada:lovelace@db/records", "postgresql://ada:[redacted: password]@db/records"),
        ("write to ada.l+tides@mail.example.org, please", "write to [redacted: e-mail address], please"),
        ("josé@exämple.de", "[redacted: e-mail address]"),
        (r'{"to": "\nada@example.org"}', r'{"to": "\n[redacted: e-mail address]"}'),
        (
            "x\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\nNhAA==\n-----END OPENSSH PRIVATE KEY-----\ny",
            "x\n[redacted: private key]\ny",
        ),
        (r"-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK", "[redacted: private key]"),
    ],
)
def test_other_secrets(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Fix the failing test in tests/test_risk-management-of-some-long-kind.py",
        "a task-oriented-approach-to-the-problem; basic troubleshooting; bearer of bad news",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "http://localhost:8080/a@b",
        "commit 9fae1753c2f4e8b7a6d5c4b3a291807f6e5d4c3b of user @ada",
        "the sk- of a key",
        "NUL \0 and ümlauts",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask(text) == text


def test_patterns_of_the_operators_own() -> None:
    own = KnownSecrets([r"ACME-\d{4}", "(?i)geheim"])
    assert own("ACME-1234: GEHEIM, ACME-X") == "[redacted]: [redacted], ACME-X"
    with pytest.raises(SettingsError, match=r"\(a.*RE2"):
        KnownSecrets(["(a"])


@given(texts)
def test_any_text_is_taken(text: str) -> None:
    assert isinstance(mask(text), str)


@given(texts, st.sampled_from(KEYS), texts)
def test_no_text_around_a_key_saves_it(before: str, key: str, after: str) -> None:
    assert key not in mask(f"{before} {key} {after}")


def test_a_long_text_takes_no_long_time() -> None:
    hostile = ["a" * 1_000_000, "-----BEGIN A PRIVATE KEY-----" * 30_000, "a://b:" * 150_000, "a@" * 500_000]
    own = KnownSecrets(["(a+)+b"])
    began = time.process_time()
    for text in hostile:
        own(text)
    assert time.process_time() - began < 10, "a matcher that goes back and tries again would need years"
