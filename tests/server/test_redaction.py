"""The gateway leaves contents out of its records, or has them redacted, as its settings say."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aibridge.errors import SettingsError
from aibridge.server.check import check
from aibridge.server.gateway import Gateway
from aibridge.server.redaction import redaction
from aibridge.server.settings import Auth, Provider, Recording, Settings, Storage
from support.client import ask
from support.dialects import MESSAGES
from support.provider import Provider as Upstream
from support.provider import events
from support.serving import serving


def no_places(text: str) -> str:
    return text.replace("Lyme", "[place]")


NOT_CALLABLE = "a text"


async def prompts(tmp_path: Path, upstream: Upstream, recording: Recording, **provider: Any) -> list[tuple[str, str]]:
    """What is in the database of a prompt, after one exchange with a gateway that is set so."""
    upstream.says(events(MESSAGES.stream))
    database = tmp_path / "aibridge.db"
    gateway = Gateway(
        Settings(
            auth=Auth(mode="none"),
            storage=Storage(url=f"sqlite:///{database}", journal_dir=tmp_path / "journal"),
            recording=recording,
            providers=(Provider(type="anthropic", name="anthropic", base_url=upstream.url, **provider),),
        )
    )
    async with serving(gateway, lifespan=True) as url:
        assert (await ask(url + MESSAGES.path, MESSAGES.request())).complete
    with closing(sqlite3.connect(database)) as records:
        assert records.execute("SELECT input_tokens FROM aibridge_token_usages").fetchall() == [(MESSAGES.tokens[0],)]
        return records.execute("SELECT prompt, metadata FROM aibridge_user_prompts").fetchall()


async def test_contents_are_off_for_all(tmp_path: Path, provider: Upstream) -> None:
    assert await prompts(tmp_path, provider, Recording(contents=False)) == [("", '{"contents":"off"}')]


async def test_contents_are_off_for_one_provider(tmp_path: Path, provider: Upstream) -> None:
    assert await prompts(tmp_path, provider, Recording(), record_contents=False) == [("", '{"contents":"off"}')]


@pytest.mark.parametrize(
    "recording",
    [
        Recording(redactor=f"{__name__}:no_places"),
        Recording(redactor="secrets", redactor_patterns=("Lyme",)),
    ],
)
async def test_a_redactor_is_named(tmp_path: Path, provider: Upstream, recording: Recording) -> None:
    ((prompt, metadata),) = await prompts(tmp_path, provider, recording)
    assert prompt in {"When is high water at [place]?", "When is high water at [redacted]?"}
    assert metadata == '{"contents":"masked"}'


def test_there_is_none_unless_it_is_set() -> None:
    assert redaction(Recording()) is None


@pytest.mark.parametrize(
    ("recording", "said"),
    [
        (
            Recording(redactor="no.such:thing"),
            r"^recording\.redactor: 'no\.such:thing' can not be loaded .* allowed is",
        ),
        (Recording(redactor=f"{__name__}:NOT_CALLABLE"), r"^recording\.redactor: .* nothing that can be called"),
        (Recording(redactor_patterns=("a",)), r'^recording\.redactor_patterns: .* allowed is "secrets"'),
    ],
)
def test_one_that_can_not_be_had_stops_the_start(recording: Recording, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check(Settings(recording=recording))
    with pytest.raises(SettingsError, match=said):
        redaction(recording)
