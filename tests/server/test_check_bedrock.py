"""`aibridge check` of a Bedrock provider: an operator learns which credentials there are, and what they may do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aibridge.server.check import check
from aibridge.server.settings import Provider, Settings, Storage
from aibridge.server.values import Secret
from support.bedrock import KEY_ID, REGION, SECRET, Bedrock, refusal, without_aws

MODEL, SMALL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "eu.anthropic.claude-haiku-4-5-20251001-v1:0"
NOTHING_TO_ANSWER = refusal(400, "ValidationException", "Malformed input request: #: required key [messages] not found")


@pytest.fixture(autouse=True)
def _no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_aws(monkeypatch, tmp_path)


class Outcome:
    """Runs the command against a provider."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._storage = Storage(url=f"sqlite:///{folder}/records.db", journal_dir=folder / "journal")
        self._capsys = capsys

    async def of(self, url: str, **settings: Any) -> tuple[int, str]:
        """The exit status, and the line about the provider."""
        known: dict[str, Any] = {"region": REGION, "model": MODEL, "base_url": url}
        provider = Provider(type="bedrock", name="bedrock", **known | settings)
        status = await asyncio.to_thread(check, Settings(storage=self._storage, providers=(provider,)))
        printed = self._capsys.readouterr().out
        assert SECRET not in printed
        (line,) = (line for line in printed.splitlines() if "bedrock" in line)
        return status, line


@pytest.fixture
def outcome(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Outcome:
    return Outcome(tmp_path, capsys)


def keys(secret: str = SECRET) -> dict[str, Secret]:
    return {"access_key": Secret(KEY_ID), "access_key_secret": Secret(secret)}


async def test_all_well(outcome: Outcome) -> None:
    async with Bedrock() as upstream:
        upstream.says(NOTHING_TO_ANSWER)
        status, line = await outcome.of(upstream.url, small_fast_model=SMALL, **keys())
    assert status == 0, line
    assert line.startswith("ok ")
    assert f"credentials from the settings accepted, {MODEL} may be invoked" in line
    assert f"{SMALL} may be invoked" in line
    assert [asked.json() for asked in upstream.asked] == [{"anthropic_version": "bedrock-2023-05-31"}] * 2


async def test_where_credentials_come_from(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    async with Bedrock() as upstream:
        upstream.says(NOTHING_TO_ANSWER)
        _, line = await outcome.of(upstream.url)
        assert "credentials from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) accepted" in line
        _, line = await outcome.of(upstream.url, api_key=Secret("an-api-key"))
        assert "its API key accepted" in line
        _, line = await outcome.of(upstream.url, api_keys=(Secret("abcd-key-0123456789ab"), Secret("second-key")))
        assert f"its API key abcd...89ab accepted, {MODEL} may be invoked" in line
        assert "its API key se...ey accepted" in line


async def test_no_credentials(outcome: Outcome) -> None:
    async with Bedrock() as upstream:
        status, line = await outcome.of(upstream.url)
        assert (status, upstream.asked) == (1, [])
    assert "no AWS credentials found; tried were the environment" in line


def test_what_is_found_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "aibridge.toml").write_text(f'[[providers]]\ntype = "bedrock"\nregion = "{REGION}"\n')
    command = [
        sys.executable,
        "-c",
        "from aibridge.server.cli import main; main()",
        "check",
        "--config",
        "aibridge.toml",
    ]
    environ = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.count("no AWS credentials found") == 1


async def test_wrong_credentials(outcome: Outcome) -> None:
    async with Bedrock() as upstream:
        status, line = await outcome.of(upstream.url, **keys("another"))
    assert status == 1
    assert "credentials from the settings refused (InvalidSignatureException)" in line


@pytest.mark.parametrize(
    ("kind", "status", "message", "verdict", "said"),
    [
        ("AccessDeniedException", 403, "no", "FAIL", f"may not invoke {MODEL}: allow bedrock:InvokeModel"),
        ("ResourceNotFoundException", 404, "no", "FAIL", f"{REGION} knows no {MODEL}"),
        ("ValidationException", 400, "The provided model identifier is invalid.", "FAIL", f"{REGION} knows no {MODEL}"),
        ("ThrottlingException", 429, "no", "note", "it answers 429 (ThrottlingException)"),
    ],
)
async def test_what_is_in_the_way(
    kind: str, status: int, message: str, verdict: str, said: str, outcome: Outcome
) -> None:
    async with Bedrock() as upstream:
        upstream.says(refusal(status, kind, message))
        _, line = await outcome.of(upstream.url, **keys())
    assert line.startswith(verdict)
    assert said in line


async def test_no_model_is_configured(outcome: Outcome) -> None:
    async with Bedrock() as upstream:
        upstream.says(refusal(400, "ValidationException", "The provided model identifier is invalid."))
        status, line = await outcome.of(upstream.url, model=None, **keys())
    assert status == 0, line
    assert "clients name the models of Bedrock themselves" in line


async def test_nobody_is_there(outcome: Outcome) -> None:
    async with Bedrock() as upstream:
        url = upstream.url
    status, line = await outcome.of(url, **keys())
    assert status == 1
    assert "Connection refused; see its base_url" in line
