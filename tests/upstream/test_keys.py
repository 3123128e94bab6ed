"""The keys of a provider that has several: which a session takes, and how each of them is."""

from __future__ import annotations

from collections import Counter

import pytest

from aibridge.providers import Credential
from aibridge.upstream.keys import LIMITED_AT_MOST, LIMITED_FOR, REFUSED_FOR, KeyRing, RingKey, all_limited


class Watching:
    """Keeps the last that it was told of each key."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}

    def key_changed(self, provider: str, key: str, state: float) -> None:
        self.told[key] = state


class Harbour:
    """A ring of keys, with a clock."""

    def __init__(self, *secrets: str) -> None:
        self.now = 0.0
        self.watching = Watching()
        credentials = [Credential("centralized", secret, ("X-Api-Key", secret)) for secret in secrets]
        self.ring = KeyRing("harbour", credentials, self.watching, clock=lambda: self.now)


SECRETS = [f"sk-of-the-harbour-0123456789-{number:04}" for number in range(4)]


@pytest.fixture
def harbour() -> Harbour:
    return Harbour(*SECRETS)


def secret_of(key: RingKey) -> str:
    return key.credential.secret


def test_sessions_are_spread_evenly(harbour: Harbour) -> None:
    taken = Counter(harbour.ring.pick(f"session-{number}").number for number in range(4000))
    assert all(850 < count < 1150 for count in taken.values()), taken


def test_another_key_moves_no_session_but_its_own() -> None:
    """Neither one that is taken out, nor one that is added, nor another order."""
    all_four, three = Harbour(*SECRETS), Harbour(*SECRETS[2::-1])
    moved = 0
    for number in range(400):
        before, after = (secret_of(each.ring.pick(f"session-{number}")) for each in (all_four, three))
        moved += before != after
        assert before in (after, SECRETS[3])
    assert 60 < moved < 140


def test_a_limit_is_over_by_itself(harbour: Harbour) -> None:
    key = harbour.ring.pick("a")
    key.answered(429, None, harbour.now)
    assert harbour.watching.told[str(key.number)] == 0.5
    assert harbour.ring.pick("a") is not key
    [warning] = harbour.ring.warnings()
    assert (
        warning
        == f"key {key.number} (sk-o...{secret_of(key)[-4:]}) of harbour is limited by the provider: left alone for 60 s"
    )
    harbour.now = LIMITED_FOR
    assert harbour.ring.pick("a") is key
    assert harbour.ring.warnings() == []
    harbour.ring.look()
    assert harbour.watching.told[str(key.number)] == 0


def test_the_longer_limit_holds(harbour: Harbour) -> None:
    """Requests that were sent before it answer after it."""
    key = harbour.ring.keys[0]
    key.answered(429, 90, 0)
    key.answered(429, 5, 1)
    key.answered(200, None, 2)
    assert (key.usable(89), key.usable(90)) == (False, True)


@pytest.mark.parametrize("asked", [LIMITED_AT_MOST + 1, 1e12, float("inf")])
def test_no_key_is_left_alone_for_ever(asked: float, harbour: Harbour) -> None:
    """Whatever a provider asks for: it may be mistaken."""
    for key in harbour.ring.keys:
        key.answered(429, asked, 0)
    assert all_limited("harbour", harbour.ring.keys, 0).retry_after == LIMITED_AT_MOST
    assert len(harbour.ring.warnings()) == 4
    harbour.now = LIMITED_AT_MOST
    assert harbour.ring.warnings() == []


def test_a_refused_key_is_well_once_it_is_taken_again(harbour: Harbour) -> None:
    key = harbour.ring.keys[0]
    key.answered(401, None, 0)
    assert "is refused by the provider" in harbour.ring.warnings()[0]
    harbour.now = REFUSED_FOR
    harbour.ring.look()
    assert harbour.watching.told["1"] == 1, "nobody knows better yet"
    key.answered(200, None, harbour.now)
    assert harbour.watching.told["1"] == 0


def test_no_secret_is_told(harbour: Harbour, caplog: pytest.LogCaptureFixture) -> None:
    for key in harbour.ring.keys:
        key.answered(401, None, 0)
    told = f"{harbour.ring.keys} {harbour.ring.warnings()} {[record.__dict__ for record in caplog.records]}"
    assert "0123456789" not in told
    assert len(caplog.records) == 4
