"""Several keys, and routes, as an operator has them: from the settings, in more than one worker, seen in its health."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.client import ask
from support.dialects import MESSAGES
from support.process import ACTOR, running
from support.provider import Provider, error, events
from support.waiting import until

KEYS = ["sk-of-the-operator-0123456789-ebb1", "sk-of-the-operator-0123456789-flow"]
CLAUDE = {"User-Agent": "claude-cli/2.1.330 (external, cli)", "X-Claude-Code-Session-Id": "session-1", **ACTOR}


def settings(workers: int = 1) -> dict[str, Any]:
    return {
        "PROVIDERS_ANTHROPIC_API_KEYS": json.dumps(KEYS),
        "ROUTES": json.dumps([{"name": "team", "providers": ["anthropic"], "aliases": {"fast": "claude-tidal-5"}}]),
        "workers": workers,
    }


async def test_a_refused_key_is_seen(provider: Provider, tmp_path: Path) -> None:
    provider.says(error(401), events(MESSAGES.stream))
    with running(tmp_path, provider.url, **settings()) as gateway:
        assert (await ask(gateway.url + MESSAGES.path, MESSAGES.request(), CLAUDE)).status == 200
        refused, taken = (KEYS.index(asked.header("X-Api-Key") or "") + 1 for asked in provider.asked)
        assert {refused, taken} == {1, 2}
        ready = await ask(f"{gateway.url}/readyz", method="GET")
        assert ready.status == 200
        [warning] = ready.json()["warnings"]
        assert warning.startswith(f"key {refused} (sk-o...{KEYS[refused - 1][-4:]}) of anthropic is refused")
        states = {key: gateway.total("provider_key_state", provider="anthropic", key=str(key)) for key in (1, 2)}
        assert states == {refused: 1, taken: 0}
        await until(gateway.ended, "it is stored")
        [row] = gateway.ended()
        assert (row["metadata"]["tried"][0]["why"], row["metadata"]["asked_last"]) == ("401", "anthropic")
        assert "0123456789" not in gateway.log.read_text()


async def test_every_worker_comes_to_the_same_key(provider: Provider, tmp_path: Path) -> None:
    provider.says(events(MESSAGES.stream))
    with running(tmp_path, provider.url, **settings(workers=2)) as gateway:
        for _ in range(12):
            assert (await ask(gateway.url + MESSAGES.path, MESSAGES.request(), CLAUDE)).status == 200
    assert len({asked.header("X-Api-Key") for asked in provider.asked}) == 1


async def test_a_route_is_asked_as_a_provider_is(provider: Provider, tmp_path: Path) -> None:
    provider.says(events(MESSAGES.stream))
    with running(tmp_path, provider.url, **settings()) as gateway:
        answer = await ask(f"{gateway.url}/team/v1/messages", MESSAGES.request(model="fast"), CLAUDE)
    assert (answer.status, answer.body) == (200, MESSAGES.for_client)
    assert provider.last.json()["model"] == "claude-tidal-5"
