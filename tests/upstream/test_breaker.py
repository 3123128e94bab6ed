"""A provider in trouble is left alone for a while, and then tried with care."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from aibridge import AnthropicProvider, Fault, Metrics, RequestBridge, TimeLimits
from aibridge.errors import Kind
from aibridge.records import Interception, InterceptionEnded
from aibridge.upstream.breaker import Breaker, BreakerPolicy, Breakers, Call, Key, State
from aibridge.upstream.upstream import Upstream, UpstreamRequest
from support.client import ask
from support.dialects import MESSAGES
from support.provider import CLOSE, Provider, Reply, document, error, events, raw
from support.recorder import ListRecorder
from support.serving import asked_by, serving
from support.waiting import until

POLICY = BreakerPolicy(failures=3, reset=10, open=30, probes=2)
KEY = ("harbour", "/v1/messages", "tide-1")


def open_breaker() -> Breaker:
    """One that has opened at second 0."""
    breaker = Breaker(POLICY)
    for _ in range(POLICY.failures):
        assert breaker.admit(0) == 0
        breaker.failed(0)
    assert breaker.state is State.OPEN
    return breaker


class TestOneBreaker:
    def test_it_opens_after_failures_in_a_row(self) -> None:
        breaker = Breaker(POLICY)
        breaker.failed(0)
        breaker.failed(1)
        breaker.completed()
        breaker.failed(2)
        breaker.failed(3)
        assert breaker.admit(3) == 0
        breaker.failed(4)
        assert breaker.state is State.OPEN

    def test_an_answer_that_has_only_begun_may_still_break_off(self) -> None:
        """Else a provider whose streams all break would never be left alone."""
        breaker = Breaker(POLICY)
        for second in range(POLICY.failures):
            breaker.answered()
            breaker.failed(second)
        assert breaker.state is State.OPEN

    def test_failures_far_apart_do_not_count_together(self) -> None:
        breaker = Breaker(POLICY)
        for second in (0, 9, 10, 19, 20, 29):
            breaker.failed(second)
        assert breaker.state is State.CLOSED

    def test_it_says_how_long_it_stays_open(self) -> None:
        breaker = open_breaker()
        assert [breaker.admit(second) for second in (0, 12.5, 29.5)] == [30, 17.5, 0.5]
        assert breaker.admit(30) == 0
        assert breaker.state is State.HALF_OPEN

    def test_few_may_try_whether_the_provider_is_well(self) -> None:
        breaker = open_breaker()
        assert [breaker.admit(30) for _ in range(4)] == [0, 0, 1, 1]

    def test_one_that_left_makes_room_for_another_try(self) -> None:
        breaker = open_breaker()
        assert [breaker.admit(30) for _ in range(3)] == [0, 0, 1]
        breaker.abandoned()
        assert [breaker.admit(30) for _ in range(2)] == [0, 1]

    def test_an_answer_closes_it_at_once(self) -> None:
        breaker = open_breaker()
        assert breaker.admit(30) == 0
        breaker.answered()
        assert breaker.state is State.CLOSED
        assert [breaker.admit(30) for _ in range(9)] == [0] * 9

    def test_once_closed_it_counts_from_the_beginning(self) -> None:
        breaker = Breaker(BreakerPolicy(failures=2, reset=60, open=10))
        breaker.failed(0)
        breaker.failed(0)
        assert breaker.admit(10) == 0
        breaker.answered()
        breaker.failed(10)
        assert breaker.state is State.CLOSED

    def test_a_failure_opens_it_again_for_the_whole_time(self) -> None:
        breaker = open_breaker()
        assert breaker.admit(30) == 0
        breaker.failed(31)
        assert breaker.state is State.OPEN
        assert breaker.admit(60) == 1


class AnyTraffic(RuleBasedStateMachine):
    """Whatever requests come, however long they take and however they end: the breaker does what its policy says.

    What it should do is told here by the sets of requests that are under way, where the breaker itself only counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = State.CLOSED
        self.opened = 0.0
        self.failures: list[float] = []
        """When each failure was that still counts."""
        self.running: list[Call] = []
        self.of_before: set[Call] = set()
        """Those that began before the breaker opened last: they prove nothing."""
        self.probes: set[Call] = set()

    @initialize(policy=st.sampled_from([POLICY, BreakerPolicy(failures=2, reset=60, open=10, probes=1)]))
    def begins(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.breakers = Breakers(policy, clock=lambda: self.now)

    @rule(seconds=st.sampled_from([0.25, 1, 5, 10, 29.75, 30]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def asks(self) -> None:
        if self.state is State.OPEN and self.now >= self.opened + self.policy.open:
            self.state = State.HALF_OPEN
        due = 0
        if self.state is State.OPEN:
            due = math.ceil(self.opened + self.policy.open - self.now)
        elif self.state is State.HALF_OPEN and len(self.probes) == self.policy.probes:
            due = 1
        if due:
            with pytest.raises(Fault) as refused:
                self.breakers.admit(KEY)
            assert (refused.value.kind, refused.value.retry_after) == (Kind.BREAKER_OPEN, due)
            return
        self.running.append(self.breakers.admit(KEY))
        if self.state is State.HALF_OPEN:
            self.probes.add(self.running[-1])

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def begins_to_answer(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.running))
        call.answered(data.draw(st.sampled_from([200, 400, 500])), "", [])
        if call in self.probes and self.state is State.HALF_OPEN:
            self.state = State.CLOSED
            self.failures.clear()
            self.probes.clear()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def ends_well(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.running))
        call.answered(200, "", [])
        call.ended(whole=True)
        if call not in self.of_before:
            self.state = State.CLOSED
            self.failures.clear()
            self.probes.clear()
        self.running.remove(call)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), status=st.sampled_from([429, 503, 504, 529, None]))
    def fails(self, data: st.DataObject, status: int | None) -> None:
        call = data.draw(st.sampled_from(self.running))
        if status:
            call.answered(status, "", [])
        else:
            call.failed(Fault(Kind.UPSTREAM_FAULT, "the harbour is closed"))
        call.ended(whole=bool(status))
        self.running.remove(call)
        if call in self.of_before:
            return
        if self.failures and self.now - self.failures[0] >= self.policy.reset:
            self.failures.clear()
        self.failures.append(self.now)
        if self.state is State.HALF_OPEN or len(self.failures) == self.policy.failures:
            self.state, self.opened = State.OPEN, self.now
            self.of_before = set(self.running)
            self.failures.clear()
            self.probes.clear()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.running))
        call.ended(whole=False)
        self.running.remove(call)
        self.probes.discard(call)


TestAnyTraffic = AnyTraffic.TestCase
TestAnyTraffic.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class Watching:
    """Keeps what it is told of breakers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float | str]] = []

    def breaker_changed(self, provider: str, endpoint: str, model: str, state: float) -> None:
        self.told.append((model, state))

    def breaker_rejected(self, provider: str, endpoint: str, model: str) -> None:
        self.told.append((model, "rejected"))


class TestManyBreakers:
    def fail(self, breakers: Breakers, key: Key) -> None:
        for _ in range(POLICY.failures):
            breakers.admit(key).answered(529, "", [])

    def test_each_provider_endpoint_and_model_has_its_own(self) -> None:
        breakers = Breakers(POLICY)
        self.fail(breakers, KEY)
        with pytest.raises(Fault, match="circuit breaker is open"):
            breakers.admit(KEY)
        provider, endpoint, model = KEY
        for other in (("quay", endpoint, model), (provider, "/v1/responses", model), (provider, endpoint, "tide-2")):
            breakers.admit(other)

    def test_operators_see_what_happens(self, caplog: pytest.LogCaptureFixture) -> None:
        now, watching = 0.0, Watching()
        breakers = Breakers(POLICY, watching, clock=lambda: now)
        self.fail(breakers, KEY)
        with pytest.raises(Fault):
            breakers.admit(KEY)
        now = 30
        breakers.admit(KEY).answered(200, "", [])
        assert watching.told == [("tide-1", 1), ("tide-1", "rejected"), ("tide-1", 0.5), ("tide-1", 0)]
        [logged] = [record for record in caplog.records if record.levelname == "WARNING"]
        assert logged.message == "circuit breaker is open"
        assert logged.__dict__["facts"] == {"provider": "harbour", "endpoint": "/v1/messages", "model": "tide-1"}

    def test_clients_can_not_fill_the_memory(self) -> None:
        """Models are chosen by clients. The breaker that was asked longest ago is forgotten."""
        watching = Watching()
        breakers = Breakers(POLICY, watching, most=2)
        self.fail(breakers, KEY)
        breakers.admit((*KEY[:2], "tide-2"))
        with pytest.raises(Fault):
            breakers.admit(KEY)
        for model in ("tide-3", "tide-4"):
            breakers.admit((*KEY[:2], model))
        assert watching.told[-1] == ("tide-1", 0.0), "what is forgotten does not stay open on a dashboard"
        breakers.admit(KEY)


class TestUpstream:
    """Breakers before a provider that can be asked."""

    @pytest.fixture
    async def upstream(self) -> AsyncIterator[Upstream]:
        upstream = Upstream(TimeLimits(first_byte=0.1, idle=5), breakers=Breakers(POLICY))
        yield upstream
        await upstream.aclose()

    @pytest.fixture
    def request_(self, provider: Provider) -> UpstreamRequest:
        url = provider.url + "/v1/messages"
        return UpstreamRequest("harbour", "POST", url, [], b"{}", endpoint="/v1/messages", model="tide-1")

    async def exchange(self, upstream: Upstream, request: UpstreamRequest) -> Kind | int:
        """The status of a whole answer, or the kind of fault there was."""
        try:
            answer = await upstream.send(request)
            try:
                while not answer.at_end:
                    await answer.read()
            finally:
                answer.close()
        except Fault as fault:
            return fault.kind
        return answer.status

    @pytest.mark.parametrize(
        ("reply", "outcome"),
        [
            (lambda: error(429), 429),
            (lambda: error(503), 503),
            (lambda: error(504), 504),
            (lambda: error(529), 529),
            (lambda: raw(CLOSE), Kind.UPSTREAM_FAULT),
            (lambda: raw(b"not HTTP\r\n\r\n"), Kind.UPSTREAM_FAULT),
            (lambda: raw(asyncio.Event()), Kind.UPSTREAM_SILENT),
            (lambda: events(b"data: {}\n\n", CLOSE), Kind.UPSTREAM_FAULT),
        ],
        ids=["429", "503", "504", "529", "hung up", "not HTTP", "silent", "broken stream"],
    )
    async def test_what_counts_as_failure(
        self,
        reply: Callable[[], Reply],
        outcome: Kind | int,
        upstream: Upstream,
        request_: UpstreamRequest,
        provider: Provider,
    ) -> None:
        provider.says(reply())
        outcomes = [await self.exchange(upstream, request_) for _ in range(4)]
        assert outcomes == [outcome] * 3 + [Kind.BREAKER_OPEN]
        assert len(provider.asked) == 3

    @pytest.mark.parametrize("status", [200, 400, 401, 404, 500])
    async def test_what_does_not(
        self, status: int, upstream: Upstream, request_: UpstreamRequest, provider: Provider
    ) -> None:
        provider.says(error(529), error(529), error(status), error(529), error(529), error(200))
        outcomes = [await self.exchange(upstream, request_) for _ in range(6)]
        assert outcomes == [529, 529, status, 529, 529, 200]

    async def test_a_client_that_leaves_is_no_failure(
        self, upstream: Upstream, request_: UpstreamRequest, provider: Provider
    ) -> None:
        provider.says(events(b"data: {}\n\n", asyncio.Event()))
        for _ in range(4):
            answer = await upstream.send(request_)
            await answer.read()
            answer.close()
        provider.says(raw(asyncio.Event()))
        for _ in range(4):
            before = len(provider.asked)
            asking = asyncio.create_task(upstream.send(request_))
            await until(lambda before=before: len(provider.asked) > before, "the provider was asked")  # type: ignore[misc]
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
        provider.says(error(200))
        assert await self.exchange(upstream, request_) == 200

    async def test_few_try_at_once(self, request_: UpstreamRequest, provider: Provider) -> None:
        """When the time of an open breaker is over, many clients wait for it; all but a few are still refused."""
        now = 0.0
        upstream = Upstream(breakers=Breakers(POLICY, clock=lambda: now))
        provider.says(error(529))
        for _ in range(3):
            await self.exchange(upstream, request_)
        now, well = 30.0, asyncio.Event()
        provider.says(Reply([well, *error(200).pieces]))
        trying = [asyncio.create_task(self.exchange(upstream, request_)) for _ in range(20)]
        await until(lambda: len(provider.asked) == 5, "the provider was tried")
        await until(lambda: sum(task.done() for task in trying) == 18, "the others were refused")
        well.set()
        outcomes = await asyncio.gather(*trying)
        assert [outcomes.count(outcome) for outcome in (200, Kind.BREAKER_OPEN)] == [2, 18]
        assert await self.exchange(upstream, request_) == 200
        await upstream.aclose()

    async def test_a_request_counts_once_however_often_it_is_sent(
        self, upstream: Upstream, request_: UpstreamRequest, provider: Provider
    ) -> None:
        again = replace(request_, max_retries=2)
        at_once = [("Retry-After", "0")]
        provider.says(error(529, headers=at_once))
        assert [await self.exchange(upstream, again) for _ in range(4)] == [529, 529, 529, Kind.BREAKER_OPEN]
        assert len(provider.asked) == 9

    async def test_nothing_is_sent_again_once_the_breaker_is_open(
        self, upstream: Upstream, request_: UpstreamRequest, provider: Provider
    ) -> None:
        provider.says(error(529, headers=[("retry-after-ms", "400")]), error(529))
        retrying = asyncio.create_task(self.exchange(upstream, replace(request_, max_retries=9)))
        await until(lambda: provider.asked, "the first attempt was there")
        for _ in range(3):
            await self.exchange(upstream, request_)
        assert await retrying == 529
        assert len(provider.asked) == 5, "the attempt that was due, and no further one"

    async def test_passthrough_is_not_guarded(
        self, upstream: Upstream, request_: UpstreamRequest, provider: Provider
    ) -> None:
        provider.says(error(529))
        assert [await self.exchange(upstream, replace(request_, model=None)) for _ in range(5)] == [529] * 5


async def test_a_client_is_told_and_the_refusal_recorded(provider: Provider, recorder: ListRecorder) -> None:
    registry = CollectorRegistry()
    anthropic = AnthropicProvider(provider.url, max_retries=2)
    bridge = RequestBridge([anthropic], recorder, Metrics(registry), breaker=POLICY)
    provider.says(error(529, headers=[("x-should-retry", "false")]))
    async with bridge, serving(asked_by("ada", bridge)) as url:
        for _ in range(3):
            assert (await ask(url + MESSAGES.path, MESSAGES.request())).status == 529
        refused = await ask(url + MESSAGES.path, MESSAGES.request())
    assert (refused.status, refused.header("Retry-After")) == (503, "30")
    assert refused.json()["error"] == {"type": "overloaded_error", "message": "circuit breaker is open"}
    assert len(provider.asked) == 3

    assert recorder.all(Interception)[-1].id == refused.id
    ended = recorder.all(InterceptionEnded)[-1]
    assert (ended.status, ended.http_status, ended.error_type) == ("failed", 503, "breaker_open")

    labels = {"provider": "anthropic", "endpoint": "/v1/messages", "model": str(MESSAGES.asking["model"])}
    names = ("state", "trips_total", "rejects_total")
    assert [registry.get_sample_value(f"circuit_breaker_{name}", labels) for name in names] == [1, 1, 1]


async def test_a_bridge_can_do_without(provider: Provider, recorder: ListRecorder) -> None:
    bridge = RequestBridge([AnthropicProvider(provider.url, max_retries=0)], recorder, breaker=None)
    provider.says(document(b"{}", 529))
    async with bridge, serving(asked_by("ada", bridge)) as url:
        answers = [await ask(url + MESSAGES.path, MESSAGES.request()) for _ in range(8)]
    assert {answer.status for answer in answers} == {529}
