"""Which attempt comes next, whatever came of those before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from aibridge.errors import Fault, Kind
from aibridge.providers import Credential
from aibridge.upstream.attempts import Attempt, Attempts, Tried, Way
from aibridge.upstream.keys import LIMITED_FOR, REFUSED_FOR, KeyRing, RingKey
from aibridge.upstream.retries import LONGEST_WAIT, MOST_DELAY

BREAKER = Fault(Kind.BREAKER_OPEN, "circuit breaker is open", retry_after=20)
BROKEN = Fault(Kind.UPSTREAM_FAULT, "the harbour is closed")
SILENT = Fault(Kind.UPSTREAM_SILENT, "the harbour is silent")


def ring(provider: str, size: int) -> tuple[RingKey, ...]:
    """The keys of a provider."""
    secrets = [f"sk-{provider}-0123456789-key-{number}" for number in range(size)]
    return KeyRing(provider, [Credential("centralized", secret, ("X-Api-Key", secret)) for secret in secrets]).keys


def ways(provider: str, keys: Sequence[RingKey] = (), max_retries: int = 0) -> list[Way]:
    """All ways to a provider."""
    return [Way(provider, max_retries, key) for key in keys] or [Way(provider, max_retries, None)]


def answered(attempts: Attempts, way: Way, status: int, now: float = 0.0, **headers: str) -> Attempt | None:
    """The next attempt after an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return attempts.answered(way, status, named, now, stands=True)


class TestOneWay:
    def test_success_ends_it(self) -> None:
        (way,) = ways("harbour", max_retries=2)
        attempts = Attempts([way])
        assert attempts.first(0) == Attempt(way)
        assert answered(attempts, way, 200) is None
        assert (attempts.verdict, attempts.tried) == (None, [])

    def test_trouble_is_tried_again_as_often_as_it_may(self) -> None:
        (way,) = ways("harbour", max_retries=2)
        attempts = Attempts([way])
        assert answered(attempts, way, 529, retry_after="3") == Attempt(way, 3, "529")
        again = attempts.failed(way, BROKEN, 0, stands=True)
        assert again
        assert again.again == "connection"
        assert answered(attempts, way, 529) is None
        assert (attempts.verdict, attempts.tried) == (None, []), "the client gets the last answer"

    def test_nothing_is_tried_again_once_the_breaker_is_open(self) -> None:
        (way,) = ways("harbour", max_retries=2)
        assert Attempts([way]).answered(way, 529, {}, 0, stands=False) is None
        assert Attempts([way]).failed(way, BROKEN, 0, stands=False) is None

    def test_silence_has_lasted_long_enough(self) -> None:
        (way,) = ways("harbour", max_retries=2)
        assert Attempts([way]).failed(way, SILENT, 0, stands=True) is None

    def test_an_open_breaker_is_told(self) -> None:
        (way,) = ways("harbour")
        attempts = Attempts([way])
        assert attempts.refused(way, BREAKER, 0) is None
        assert attempts.verdict is BREAKER


class TestSeveralKeys:
    def test_a_limited_key_is_left_at_once(self) -> None:
        first, second = ways("harbour", ring("harbour", 2), max_retries=2)
        attempts = Attempts([first, second])
        assert answered(attempts, first, 429, retry_after="30") == Attempt(second)
        assert answered(attempts, second, 200) is None
        assert attempts.tried == [Tried("harbour", "sk-h...ey-0", "429")]
        assert Attempts([first, second]).first(29) == Attempt(second)
        assert Attempts([first, second]).first(30) == Attempt(first)

    def test_it_is_left_for_a_minute_where_the_provider_does_not_say_how_long(self) -> None:
        first, second = ways("harbour", ring("harbour", 2))
        answered(Attempts([first, second]), first, 429)
        assert Attempts([first, second]).first(LIMITED_FOR - 1) == Attempt(second)
        assert Attempts([first, second]).first(LIMITED_FOR) == Attempt(first)

    def test_when_all_are_limited_the_client_learns_when_the_first_will_not_be(self) -> None:
        first, second = ways("harbour", ring("harbour", 2), max_retries=2)
        attempts = Attempts([first, second])
        answered(attempts, first, 429, retry_after="30")
        assert answered(attempts, second, 429, retry_after="7") is None
        assert attempts.verdict
        assert (attempts.verdict.kind, attempts.verdict.retry_after) == (Kind.TOO_MANY_REQUESTS, 7)
        later = Attempts([first, second])
        assert later.first(5.5) is None
        assert later.verdict
        assert later.verdict.retry_after == 2
        assert later.tried == [Tried("harbour", None, "limited")]

    def test_a_refused_key_is_left_for_a_while(self) -> None:
        first, second = ways("harbour", ring("harbour", 2))
        assert answered(Attempts([first, second]), first, 401) == Attempt(second)
        assert Attempts([first, second]).first(REFUSED_FOR - 1) == Attempt(second)
        assert Attempts([first, second]).first(REFUSED_FOR) == Attempt(first)

    def test_where_all_are_refused_the_client_gets_the_providers_own_words(self) -> None:
        """And they are tried all the same: one client may have asked for what no key may have."""
        first, second = ways("harbour", ring("harbour", 2))
        for _ in range(2):
            attempts = Attempts([first, second])
            assert attempts.first(0) == Attempt(first)
            assert answered(attempts, first, 403) == Attempt(second)
            assert answered(attempts, second, 403) is None
            assert attempts.verdict is None
        answered(Attempts([first, second]), first, 200)
        assert Attempts([second, first]).first(0) == Attempt(first), "it is well again"

    def test_who_waits_for_a_limited_key_is_not_told_of_a_refused_one(self) -> None:
        first, second = ways("harbour", ring("harbour", 2))
        attempts = Attempts([first, second])
        answered(attempts, first, 429)
        assert answered(attempts, second, 401) is None
        assert attempts.verdict
        assert attempts.verdict.retry_after == LIMITED_FOR

    def test_other_trouble_is_not_the_keys(self) -> None:
        first, second = ways("harbour", ring("harbour", 2), max_retries=1)
        attempts = Attempts([first, second])
        again = answered(attempts, first, 503)
        assert again
        assert (again.way, again.again) == (first, "503")
        assert answered(attempts, first, 503) is None


class TestSeveralProviders:
    def test_one_that_fails_is_left_for_the_next_after_its_own_retries(self) -> None:
        (first,), (second,) = ways("harbour", max_retries=1), ways("quay", max_retries=1)
        attempts = Attempts([first, second])
        assert answered(attempts, first, 529, retry_after="1") == Attempt(first, 1, "529")
        assert answered(attempts, first, 529) == Attempt(second)
        assert answered(attempts, second, 500, retry_after="1") == Attempt(second, 1, "500"), (
            "it has retries of its own"
        )
        assert answered(attempts, second, 500) is None
        assert attempts.tried == [Tried("harbour", None, "529")]

    def test_all_its_keys_are_tried_before(self) -> None:
        harbour, (quay,) = ways("harbour", ring("harbour", 2)), ways("quay")
        attempts = Attempts([*harbour, quay])
        assert answered(attempts, harbour[0], 429) == Attempt(harbour[1])
        assert answered(attempts, harbour[1], 401) == Attempt(quay)
        assert Attempts([*harbour, quay]).first(1) == Attempt(quay)

    def test_what_the_client_did_wrong_is_told_by_the_first(self) -> None:
        (first,), (second,) = ways("harbour"), ways("quay")
        for status in (400, 404, 413, 422):
            assert answered(Attempts([first, second]), first, status) is None

    def test_silence_leads_to_the_next(self) -> None:
        (first,), (second,) = ways("harbour"), ways("quay")
        assert Attempts([first, second]).failed(first, SILENT, 0, stands=True) == Attempt(second)

    def test_the_next_is_nearer_than_a_long_wait(self) -> None:
        (first,), (second,) = ways("harbour", max_retries=1), ways("quay", max_retries=1)
        attempts = Attempts([first, second])
        assert answered(attempts, first, 429, retry_after=str(MOST_DELAY + 1)) == Attempt(second)
        assert answered(attempts, second, 429, retry_after=str(LONGEST_WAIT)) == Attempt(second, LONGEST_WAIT, "429")

    def test_an_answer_stands_where_the_next_provider_can_not_be_asked(self) -> None:
        (first,), (second,) = ways("harbour"), ways("quay")
        attempts = Attempts([first, second])
        assert answered(attempts, first, 529) == Attempt(second)
        assert attempts.refused(second, BREAKER, 0) is None
        assert attempts.verdict is None

    def test_of_several_refusals_the_one_is_told_that_ends_first(self) -> None:
        harbour, (quay,) = ways("harbour", ring("harbour", 2)), ways("quay")
        answered(Attempts(harbour), harbour[0], 429)
        answered(Attempts(harbour), harbour[1], 429)
        attempts = Attempts([*harbour, quay])
        assert attempts.first(0) == Attempt(quay)
        assert attempts.refused(quay, BREAKER, 0) is None
        assert attempts.verdict is BREAKER


@dataclass
class Asking:
    """A request under way, and what the model knows of it."""

    attempts: Attempts
    ways: list[Way]
    way: Way
    gone: set[Way] = field(default_factory=set)
    """Ways that can not be taken any more."""
    retries: int = 0
    sent: int = 0


PASSING = {408, 409, 429, 500, 503, 529}


class AnyTrouble(RuleBasedStateMachine):
    """Requests side by side that share keys, whatever comes of their attempts.

    The model keeps two tables of times, and looks for the next way by asking of each in turn whether it may be taken.
    """

    @initialize(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=3), retries=st.integers(0, 2))
    def begins(self, sizes: list[int], retries: int) -> None:
        self.now = 0.0
        self.retries = retries
        self.rings = {f"harbour-{number}": ring(f"harbour-{number}", size) for number, size in enumerate(sizes)}
        self.limited: dict[RingKey, float] = {}
        self.refused: dict[RingKey, float] = {}
        self.asking: list[Asking] = []

    def waits(self, key: RingKey) -> bool:
        return self.limited.get(key, -1) > self.now

    def next_of(self, asking: Asking) -> Way | None:
        """The first way that may be taken of those that are left; a refused key's only where no other is left."""
        for provider in self.rings:
            mine = [way for way in asking.ways if way.provider == provider and way not in asking.gone]
            well = [way for way in mine if way.key is None or not (self.waits(way.key) or self.is_refused(way.key))]
            if well:
                return well[0]
            if mine and not any(map(self.waits, self.rings[provider])):
                return mine[0]
            asking.gone |= set(mine)  # nobody comes back to a provider that was passed over
        return None

    def is_refused(self, key: RingKey) -> bool:
        return self.refused.get(key, -1) > self.now

    @rule(seconds=st.sampled_from([1, 10, 45, 60, 300]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data())
    def asks(self, data: st.DataObject) -> None:
        order = [data.draw(st.permutations(keys)) for keys in self.rings.values()]
        made = [way for name, keys in zip(self.rings, order, strict=True) for way in ways(name, keys, self.retries)]
        attempts = Attempts(made)
        first = attempts.first(self.now)
        asking = Asking(attempts, made, made[0])
        assert (first and first.way) == self.next_of(asking)
        if first is None:
            self.told_when_a_key_is_free(asking)
            return
        assert (first.delay, first.again) == (0, None)
        asking.way = first.way
        self.asking.append(asking)

    def told_when_a_key_is_free(self, asking: Asking) -> None:
        verdict = asking.attempts.verdict
        assert verdict
        assert verdict.kind is Kind.TOO_MANY_REQUESTS
        waiting = [until for key, until in self.limited.items() if self.waits(key)]
        assert verdict.retry_after
        assert self.now + verdict.retry_after in [max(until, self.now + 1) for until in waiting]

    @precondition(lambda self: self.asking)
    @rule(
        data=st.data(),
        status=st.sampled_from([200, 400, 401, 403, 408, 429, 500, 503, 529]),
        asked=st.sampled_from([None, 1, 30, 90]),
        stands=st.booleans(),
    )
    def answers(self, data: st.DataObject, status: int, asked: int | None, stands: bool) -> None:
        asking = data.draw(st.sampled_from(self.asking))
        way = asking.way
        key = way.key
        headers: Mapping[str, str] = {"retry-after": str(asked)} if asked else {}
        if key and status == 429:
            until = self.now + (asked or 60)
            self.limited[key] = max(self.limited[key], until) if self.waits(key) else until
            self.refused.pop(key, None)
        elif key and status in (401, 403):
            self.refused[key] = self.now + 300
            self.limited.pop(key, None)
        elif key:
            self.refused.pop(key, None)
        step = asking.attempts.answered(way, status, headers, self.now, stands=stands)
        self.follow(asking, step, self.due(asking, status, asked, stands))

    @precondition(lambda self: self.asking)
    @rule(data=st.data(), fault=st.sampled_from([BROKEN, SILENT]), stands=st.booleans())
    def fails(self, data: st.DataObject, fault: Fault, stands: bool) -> None:
        asking = data.draw(st.sampled_from(self.asking))
        step = asking.attempts.failed(asking.way, fault, self.now, stands=stands)
        self.follow(asking, step, self.due(asking, 0 if fault is BROKEN else None, None, stands))

    @precondition(lambda self: any(not asking.sent for asking in self.asking))
    @rule(data=st.data())
    def the_breaker_is_open(self, data: st.DataObject) -> None:
        asking = data.draw(st.sampled_from([each for each in self.asking if not each.sent]))
        step = asking.attempts.refused(asking.way, BREAKER, self.now)
        self.leave(asking)
        self.follow(asking, step, self.next_of(asking))

    def leave(self, asking: Asking) -> None:
        asking.gone |= {way for way in asking.ways if way.provider == asking.way.provider}
        asking.retries = asking.sent = 0

    def due(self, asking: Asking, status: int | None, asked: int | None, stands: bool) -> Way | None:
        """The way that is to be taken next; `status` is 0 for a broken connection and None for silence."""
        way = asking.way
        asking.sent += 1
        if way.key and status in (401, 403, 429):
            asking.gone.add(way)
            following = self.next_of(asking)
            if following and following.provider == way.provider and stands:
                return following
            self.leave(asking)
            return self.next_of(asking)
        elsewhere = {each.provider for each in asking.ways if each not in asking.gone} - {way.provider}
        patience = 8 if elsewhere else 60
        may_retry = status == 0 or status in PASSING
        if may_retry and stands and asking.retries < self.retries and (asked or 0) <= patience:
            asking.retries += 1
            return way
        if status in (None, 0, 401, 403, 429) or status >= 500:
            self.leave(asking)
            return self.next_of(asking)
        return None

    def follow(self, asking: Asking, step: Attempt | None, due: Way | None) -> None:
        before = asking.way
        assert (step and step.way) == due
        if step is None:
            self.asking.remove(asking)
            return
        assert (step.again is not None) == (step.way is before)
        asking.way = step.way
        asking.sent = asking.sent if step.way.provider == before.provider else 0


TestAnyTrouble = AnyTrouble.TestCase
TestAnyTrouble.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
