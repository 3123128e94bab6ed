"""Reaching a provider through proxies, by TLS, by IPv6, and wherever its host has moved."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trustme
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from aibridge.errors import Fault, Kind, SettingsError
from aibridge.http_client.connecting import Connecting, Proxies
from aibridge.server.connecting import connecting, time_limits
from aibridge.server.loading import load
from aibridge.server.settings import Provider as ProviderSettings
from aibridge.server.settings import Upstream as UpstreamSettings
from aibridge.upstream.upstream import TimeLimits, Upstream, UpstreamRequest
from support.client import ask
from support.dialects import MESSAGES
from support.process import ACTOR, KEY, running
from support.provider import Provider, document, events, head, raw
from support.proxy import Proxy
from support.waiting import at_rest, until

Run = Callable[[Coroutine[Any, Any, None]], None]

SECRET = "sk-for-the-provider"


@asynccontextmanager
async def reaching(connecting: Connecting) -> AsyncIterator[Upstream]:
    upstream = Upstream(TimeLimits(connect=5, first_byte=5, idle=5), connecting=connecting)
    try:
        yield upstream
    finally:
        await upstream.aclose()


async def asked(upstream: Upstream, url: str) -> bytes:
    """The answer to a small request."""
    request = UpstreamRequest("tidal", "POST", f"{url}/v1/messages?beta=true", [("X-Api-Key", SECRET)], b"{}")
    answer = await upstream.send(request)
    try:
        return await answer.read()
    finally:
        answer.close()


class TestProxies:
    """They see a request to an `http` URL, and of one to an `https` URL only whom it is for."""

    async def test_a_request_in_the_clear(self, provider: Provider) -> None:
        provider.says(document(b"well"))
        async with (
            Proxy(everything_is=("127.0.0.1", provider.port)) as proxy,
            reaching(Connecting(proxies=Proxies(http=proxy.url))) as upstream,
        ):
            assert await asked(upstream, "http://tidal.example") == b"well"
        assert proxy.asked == ["POST http://tidal.example/v1/messages?beta=true HTTP/1.1"]
        assert (provider.last.target, provider.last.header("Host")) == ("/v1/messages?beta=true", "tidal.example")
        assert provider.last.body == b"{}"

    async def test_a_request_by_tls(self, authority: trustme.CA) -> None:
        async with Provider(tls=served_by(authority, "tidal.example")) as provider:
            provider.says(document(b"well"))
            async with Proxy(everything_is=("127.0.0.1", provider.port)) as proxy:
                how = Connecting(proxies=Proxies(https=proxy.url), tls={"tidal": trusting(authority)})
                async with reaching(how) as upstream:
                    assert await asked(upstream, "https://tidal.example") == b"well"
                    assert await asked(upstream, "https://tidal.example") == b"well"
        assert proxy.asked == ["CONNECT tidal.example:443 HTTP/1.1"]  # and the tunnel is used again
        assert SECRET.encode() not in proxy.tunnelled
        assert provider.last.header("X-Api-Key") == SECRET

    async def test_one_that_wants_to_know_who_asks(self, provider: Provider, authority: trustme.CA) -> None:
        provider.says(document(b"well"))
        async with Proxy(password="me:open sesame", everything_is=("127.0.0.1", provider.port)) as proxy:
            known = proxy.url.replace("//", "//me:open%20sesame@")
            async with reaching(Connecting(proxies=Proxies(http=known, https=proxy.url))) as upstream:
                assert await asked(upstream, "http://tidal.example") == b"well"
                assert provider.last.header("Proxy-Authorization") is None
                # This one asks for the first request of a connection only, and passes on what follows as it comes.
                assert await asked(upstream, "http://tidal.example/other") == b"well"
                assert provider.last.header("Proxy-Authorization") is not None
                assert provider.connections == 1
                with pytest.raises(Fault, match=r"the proxy before tidal refused to connect \(407\)") as refused:
                    await asked(upstream, "https://tidal.example")
        assert refused.value.kind is Kind.UPSTREAM_FAULT

    async def test_one_that_is_not_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        async with reaching(Connecting(proxies=Proxies(https=nobody))) as upstream:
            with pytest.raises(Fault, match="the proxy before tidal could not be reached: Connection refused"):
                await asked(upstream, "https://tidal.example")

    @pytest.mark.parametrize(
        ("url", "exceptions", "proxied"),
        [
            ("https://tidal.example", "", True),
            ("http://tidal.example", "", False),
            ("https://tidal.example", "*", False),
            ("https://tidal.example", "other.example, tidal.example", False),
            ("https://tidal.example", "example", False),
            ("https://tidal.example", ".example", False),
            ("https://tidal.example", "*.example", False),
            ("https://tidal.example", "dal.example", True),
            ("https://TIDAL.example", "tidal.EXAMPLE", False),
            ("https://tidal.example", "tidal.example:443", False),
            ("https://tidal.example", "tidal.example:8443", True),
            ("https://10.1.2.3", "10.0.0.0/8", False),
            ("https://10.1.2.3", "11.0.0.0/8", True),
            ("https://10.1.2.3:8443", "10.1.2.3:8443", False),
            ("https://[2001:db8::7]", "2001:db8::/32", False),
            ("https://[2001:db8::7]", "[2001:db8::7]:443", False),
            ("https://[2001:db8::7]", "2001:db8::8", True),
            ("https://localhost", "", False),
            ("https://127.0.0.1:8000", "", False),
            ("https://[::1]:8000", "", False),
        ],
    )
    def test_exceptions(self, url: str, exceptions: str, proxied: bool) -> None:
        proxies = Proxies(https="http://proxy.example:3128", exceptions=exceptions)
        assert proxies.of(URL(url)) == (URL("http://proxy.example:3128") if proxied else None)

    def test_credentials_are_not_shown(self) -> None:
        assert "secret" not in repr(Proxies("http://me:secret@proxy.example", "http://me:secret@proxy.example"))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """One that no system knows."""
    return trustme.CA()


def served_by(
    authority: trustme.CA, host: str, *, until: datetime | None = None, client: trustme.CA | None = None
) -> ssl.SSLContext:
    """What a server needs to be a host, `until` a time; with `client`, it wants certificates of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, not_before=until and datetime(2019, 1, 1), not_after=until).configure_cert(context)
    if client:
        client.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in each event loop, for TLS is each one's own; the gateway runs in uvloop."""
    found: Run = request.param
    return found


class TestTLS:
    """Settings as an operator writes them, and a server with a certificate made on the spot."""

    @staticmethod
    @asynccontextmanager
    async def reaching(tmp_path: Path, authority: trustme.CA, **provider: Any) -> AsyncIterator[Upstream]:
        """The provider `tidal`, where that authority is trusted."""
        file = tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(str(file))
        told = ProviderSettings(type="openai", name="tidal", base_url="https://tidal.example", **provider)
        async with reaching(connecting(UpstreamSettings(ca_file=file), [told])) as upstream:
            yield upstream

    def test_an_authority_of_ones_own(self, run: Run, tmp_path: Path, authority: trustme.CA) -> None:
        async def story() -> None:
            async with Provider(tls=served_by(authority, "127.0.0.1")) as provider:
                provider.says(document(b"well"))
                async with self.reaching(tmp_path, authority) as upstream:
                    assert await asked(upstream, provider.url) == b"well"

        run(story())

    def test_one_of_a_single_provider(self, tmp_path: Path, authority: trustme.CA) -> None:
        file = tmp_path / "authority.pem"
        authority.cert_pem.write_to_path(str(file))
        ours = ProviderSettings(type="openai", name="tidal", base_url="https://tidal.example", ca_file=file)
        other = ProviderSettings(type="openai", name="other", base_url="https://other.example")
        made = connecting(UpstreamSettings(), [ours, other])
        assert made.tls.keys() == {"tidal"}
        assert connecting(UpstreamSettings(), [other]) == Connecting()

    def test_a_client_certificate(self, run: Run, tmp_path: Path, authority: trustme.CA) -> None:
        clients = trustme.CA()

        async def story() -> None:
            async with Provider(tls=served_by(authority, "127.0.0.1", client=clients)) as provider:
                provider.says(document(b"well"))
                ours = certified_by(clients, tmp_path)
                async with self.reaching(tmp_path, authority, client_cert=ours) as upstream:
                    assert await asked(upstream, provider.url) == b"well"

        run(story())

    @pytest.mark.parametrize(
        ("version", "shown", "cause"),
        [
            (ssl.TLSVersion.TLSv1_2, False, "to tidal: it refuses the handshake; it may want a client certificate"),
            (ssl.TLSVersion.TLSv1_2, True, "to tidal: it does not trust the client certificate"),
            # Here the server has its say after the handshake, and is not heard where the request was being written.
            (ssl.TLSVersion.TLSv1_3, False, "to tidal: it wants a client certificate; name one|tidal closed the conn"),
        ],
    )
    def test_a_client_certificate_that_is_missing_or_refused(
        self, version: ssl.TLSVersion, shown: bool, cause: str, run: Run, tmp_path: Path, authority: trustme.CA
    ) -> None:
        context = served_by(authority, "127.0.0.1", client=trustme.CA())
        context.maximum_version = version
        ours = {"client_cert": certified_by(trustme.CA(), tmp_path)} if shown else {}

        async def story() -> None:
            async with self.reaching(tmp_path, authority, **ours) as upstream:
                with pytest.raises(Fault, match=cause):
                    await asked(upstream, url)

        with refusing(context) as url:
            run(story())

    @pytest.mark.parametrize(
        ("host", "until", "known", "cause"),
        [
            ("tidal.example", None, True, "it is that of another host"),
            ("127.0.0.1", datetime(2020, 1, 1), True, "it has expired"),
            ("127.0.0.1", None, False, "nobody known vouches for it; if it is signed by an authority of your own"),
        ],
    )
    def test_a_certificate_that_is_refused(
        self,
        host: str,
        until: datetime | None,
        known: bool,
        cause: str,
        run: Run,
        tmp_path: Path,
        authority: trustme.CA,
    ) -> None:
        async def story() -> None:
            issuer = authority if known else trustme.CA()
            async with Provider(tls=served_by(issuer, host, until=until)) as provider:
                provider.says(document(b"well"))
                async with self.reaching(tmp_path, authority) as upstream:
                    with pytest.raises(Fault, match=f"to tidal: its certificate is refused, for {cause}"):
                        await asked(upstream, provider.url)

        run(story())

    def test_a_server_that_does_not_speak_it(self, run: Run, tmp_path: Path, authority: trustme.CA) -> None:
        async def story() -> None:
            async with plain_text_server() as url, self.reaching(tmp_path, authority) as upstream:
                with pytest.raises(Fault, match="no secure connection to tidal: it does not speak TLS there"):
                    await asked(upstream, url)

        run(story())

    @pytest.mark.parametrize(
        ("written", "said"),
        [
            ('ca_file = "nowhere.pem"', r"providers.tidal.ca_file: nowhere\.pem can not be used \(No such file"),
            ('ca_file = "text.pem"', r"providers.tidal.ca_file: text\.pem can not be used \(OpenSSL says"),
            ('client_cert = "text.pem"', r"providers.tidal.client_cert: text\.pem can not be used \(OpenSSL says"),
            ('client_key = "text.pem"', r"providers.tidal.client_key: there is no client_cert"),
        ],
    )
    def test_files_that_can_not_be_used_stop_the_start(
        self, written: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("text.pem").write_text("no certificate")
        config = Path("aibridge.toml")
        config.write_text(f'[[providers]]\ntype = "openai"\nname = "tidal"\napi_key = "k"\n{written}')
        with pytest.raises(SettingsError, match=f"^{said}"):
            load(config, {})


async def test_a_gateway_whose_way_out_is_a_proxy(tmp_path: Path, authority: trustme.CA) -> None:
    """As its operator sets it up: by variables, with a file that holds the authority."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    async with (
        Provider(tls=served_by(authority, "tidal.example")) as provider,
        Proxy(everything_is=("127.0.0.1", provider.port)) as proxy,
    ):
        provider.says(events(MESSAGES.stream))
        variables: dict[str, Any] = {"UPSTREAM_HTTPS_PROXY": proxy.url, "UPSTREAM_CA_FILE": str(file)}
        with running(tmp_path, "https://tidal.example", **variables) as gateway:
            answer = await ask(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR)
    assert (answer.status, answer.body) == (200, MESSAGES.stream)
    assert proxy.asked == ["CONNECT tidal.example:443 HTTP/1.1"]
    assert KEY.encode() not in proxy.tunnelled


def test_time_limits_of_a_provider() -> None:
    """What it does not say is as for all; 0 says that there is no limit."""
    usual = UpstreamSettings(connect_timeout=1, first_byte_timeout=2, idle_timeout=3, whole_timeout=4)
    slow = ProviderSettings(type="openai", name="slow", base_url="https://x.example", idle_timeout=30, whole_timeout=0)
    assert time_limits(usual) == TimeLimits(1, 2, 3, 4, 0, 15)
    assert time_limits(usual, slow) == TimeLimits(1, 2, 30, 0, 0, 15)


def certified_by(authority: trustme.CA, folder: Path) -> Path:
    """A file with a certificate of the gateway, and its key."""
    file = folder / "gateway.pem"
    authority.issue_cert("gateway@sea.example").private_key_and_cert_chain_pem.write_to_path(str(file))
    return file


@contextmanager
def refusing(context: ssl.SSLContext) -> Iterator[str]:
    """A server that refuses a handshake, and takes the time to say why; asyncio's would not."""

    def serve() -> None:
        connection, _ = listening.accept()
        with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secured:
            with pytest.raises(ssl.SSLError):
                secured.do_handshake()
            socket.socket.shutdown(secured, socket.SHUT_WR)
            with suppress(OSError):
                while socket.socket.recv(secured, 1 << 16):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


@asynccontextmanager
async def plain_text_server() -> AsyncIterator[str]:
    """The `https` URL of one that answers in plain text to whatever it hears."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(head(400, [("Content-Length", "0")]))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Moving(AbstractResolver):
    """Where hosts are said to be; a test changes it."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in self.addresses
        ]

    async def close(self) -> None: ...


async def test_a_host_that_moves_is_followed() -> None:
    moving = Moving("127.0.0.1")
    async with Provider() as before:
        before.says(document(b"before"), raw(head(200, [("Content-Length", "6"), ("Connection", "close")]) + b"before"))
        async with reaching(Connecting(resolver=moving, dns_ttl=0.05)) as upstream:
            url = f"http://tidal.example:{before.port}"
            assert await asked(upstream, url) == b"before"
            async with Provider("127.0.0.2", before.port) as after:
                after.says(document(b"after"))
                moving.addresses = ["127.0.0.2"]
                assert await asked(upstream, url) == b"before"  # by the same connection, which then ends
                await asyncio.sleep(0.06)
                assert await asked(upstream, url) == b"after"
    assert moving.asked == 2


async def test_a_host_is_not_looked_up_for_each_connection(provider: Provider) -> None:
    moving = Moving("127.0.0.1")
    provider.says(raw(head(200, [("Content-Length", "4"), ("Connection", "close")]) + b"well"))
    async with reaching(Connecting(resolver=moving)) as upstream:
        for _ in range(3):
            assert await asked(upstream, f"http://tidal.example:{provider.port}") == b"well"
    assert (provider.connections, moving.asked) == (3, 1)


async def test_ipv6() -> None:
    async with Provider("::1") as provider:
        provider.says(document(b"well"))
        async with reaching(Connecting()) as upstream:
            assert await asked(upstream, provider.url) == b"well"
        assert provider.url.startswith("http://[::1]:")


async def test_of_two_addresses_the_one_that_answers_is_taken(provider: Provider) -> None:
    """RFC 8305: nobody listens at the IPv6 address."""
    provider.says(document(b"well"))
    async with reaching(Connecting(resolver=Moving("::1", "127.0.0.1"))) as upstream:
        assert await asked(upstream, f"http://tidal.example:{provider.port}") == b"well"


async def test_connections_to_a_host_can_be_limited(provider: Provider) -> None:
    """What is above the limit waits."""
    turn = asyncio.Event()
    provider.says(events(turn, b"well"))
    async with reaching(Connecting(per_host=2)) as upstream:
        asking = [asyncio.create_task(asked(upstream, provider.url)) for _ in range(6)]
        await until(lambda: len(provider.asked) == 2, "two were asked")
        assert await at_rest(lambda: provider.connections, 0.1) == 2
        turn.set()
        assert await asyncio.gather(*asking) == [b"well"] * 6
    assert len(provider.asked) == 6
