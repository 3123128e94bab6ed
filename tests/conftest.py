"""What tests of several rooms share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from prometheus_client import CollectorRegistry

from support.dialects import DIALECTS, Dialect
from support.postgres import PostgreSQL
from support.provider import Provider
from support.recorder import ListRecorder
from support.serving import bridged

# How long an example takes says more of the machine than of the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tells a figure that a test found; all are shown at the end of the run."""
    return lambda told: record_property("figures", told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures."""
    passed = terminalreporter.stats.get("passed", [])
    told = [
        (report.head_line, value) for report in passed for name, value in report.user_properties if name == "figures"
    ]
    if told:
        terminalreporter.section("figures")
    for test, value in told:
        terminalreporter.write_line(f"{test}: {value}")


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A provider that says what the test tells it to."""
    async with Provider() as listening:
        yield listening


@pytest.fixture
def recorder() -> ListRecorder:
    """Keeps records in lists."""
    return ListRecorder()


@pytest.fixture
def registry() -> CollectorRegistry:
    """Prometheus metrics of the test alone."""
    return CollectorRegistry()


@pytest.fixture
async def bridge(provider: Provider, recorder: ListRecorder) -> AsyncIterator[str]:
    """The URL of a bridge before the provider, that repeats nothing and is asked by `ada`."""
    async with bridged(provider.url, recorder) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server for all tests of this process. Who stops it, starts it again."""
    server = PostgreSQL()
    yield server
    server.close()


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Each dialect in turn."""
    found: Dialect = request.param
    return found
