"""AWS credentials are found where AWS' own clients find them, and are renewed before they expire."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aibridge.providers.aws import AccessKey, AWSCredentials, NoCredentials
from support.bedrock import REGION, without_aws
from support.waiting import LIMIT, until

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty home folder, on a machine that has no credentials."""
    without_aws(monkeypatch, tmp_path)
    return tmp_path


ASSUMED = b"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAWEB</AccessKeyId>
<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


class Container:
    """The endpoint from which containers have the credentials of their role: numbered, and of a limited life.

    What is posted to it is answered as AWS' token service answers those who have a web identity.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.life = timedelta(hours=1)
        self.asked = 0
        self.fails = False
        self.posted: list[bytes] = []
        self.token = "t"
        self.go_on = threading.Event()
        self.go_on.set()

    def answer(self) -> tuple[int, bytes]:
        self.asked += 1
        number = self.asked
        assert self.go_on.wait(10)
        if self.fails:
            return 500, b"{}"
        expires = (datetime.now(UTC) + self.life).isoformat()
        told = {"AccessKeyId": f"ASIA{number}", "SecretAccessKey": SECRET, "Token": self.token, "Expiration": expires}
        return 200, json.dumps(told).encode()


@contextmanager
def serving() -> Iterator[Container]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.say(*container.answer())

        def do_POST(self) -> None:
            container.posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.say(200, ASSUMED)

        def say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        container = Container(f"http://127.0.0.1:{server.server_port}/credentials")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield container
        finally:
            container.go_on.set()
            server.shutdown()


@pytest.fixture(name="container")
def container_role(monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    with serving() as each:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", each.url)
        yield each


async def test_configured_ones_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    credentials = AWSCredentials(REGION, configured=AccessKey("AKIASET", SECRET, None))
    assert credentials.key == await credentials.current() == AccessKey("AKIASET", SECRET, None)
    assert credentials.source == "the settings"
    assert not credentials.doubt()
    assert credentials.key


async def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    credentials = AWSCredentials(REGION)
    assert await credentials.current() == AccessKey("AKIAENV", SECRET, "token")
    assert credentials.source.startswith("the environment")


async def test_shared_files_and_a_profile(home: Path) -> None:
    folder = home / ".aws"
    folder.mkdir()
    told = json.dumps({"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": SECRET})
    (folder / "program").write_text(told)
    (folder / "credentials").write_text(f"[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = {SECRET}\n")
    (folder / "config").write_text(f"[profile harbour]\ncredential_process = cat {folder / 'program'}\n")

    assert (await AWSCredentials(REGION).current()).id == "AKIAFILE"
    credentials = AWSCredentials(REGION, profile="harbour")
    assert (await credentials.current()).id == "AKIAPROCESS"
    assert credentials.source == "the profile's credential_process"


async def test_keys_that_aws_does_not_know_any_more_are_looked_for_again(home: Path) -> None:
    file = home / ".aws" / "credentials"
    file.parent.mkdir()
    file.write_text(f"[default]\naws_access_key_id = AKIAOLD\naws_secret_access_key = {SECRET}\n")
    credentials = AWSCredentials(REGION)
    assert (await credentials.current()).id == "AKIAOLD"
    file.write_text(f"[default]\naws_access_key_id = AKIANEW\naws_secret_access_key = {SECRET}\n")
    assert (await credentials.current()).id == "AKIAOLD"
    assert credentials.doubt()
    assert credentials.doubt(), "another request was under way, and the search is not over"
    assert (await credentials.current()).id == "AKIANEW"


async def test_keys_that_are_all_there_is_are_not_looked_for_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    credentials = AWSCredentials(REGION, patience=60)
    await credentials.current()
    assert credentials.doubt()
    await credentials.current()
    assert not credentials.doubt()
    assert credentials.key


async def test_a_web_identity(home: Path, container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    token = home / "token"
    token.write_text("of-the-cluster")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/gateway")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", container.url)
    credentials = AWSCredentials(REGION)
    assert await credentials.current() == AccessKey("ASIAWEB", "s", "t")
    assert credentials.source.startswith("web identity")
    assert b"WebIdentityToken=of-the-cluster" in container.posted[0]


def test_no_level_of_the_log_shows_a_secret(container: Container) -> None:
    program = (
        "import asyncio; from aibridge.observe import log; from aibridge.providers.aws import AWSCredentials; "
        "log.configure('text', 'debug'); "
        "asyncio.run(AWSCredentials('us-east-1').signed('https://h/model/m/invoke', [], b'{}'))"
    )
    container.token = "token-of-the-session"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert container.asked
    assert "selector" in ran.stderr, "asyncio's own line: the level is that of debugging"
    assert container.token not in ran.stderr
    assert SECRET not in ran.stderr


async def test_a_role_is_asked_once_for_all_who_wait(container: Container) -> None:
    credentials = AWSCredentials(REGION)
    found = await asyncio.gather(*(credentials.current() for _ in range(20)))
    assert {key.id for key in found} == {"ASIA1"}
    assert container.asked == 1
    assert credentials.source == "the container's role"


async def test_one_who_leaves_does_not_end_the_search(container: Container) -> None:
    credentials = AWSCredentials(REGION)
    container.go_on.clear()
    leaving, staying = (asyncio.create_task(credentials.current()) for _ in range(2))
    await until(lambda: container.asked == 1, "the role is asked for")
    leaving.cancel()
    container.go_on.set()
    assert (await staying).id == "ASIA1"


async def test_what_expires_soon_is_renewed_without_a_pause(container: Container) -> None:
    container.life = timedelta(minutes=12)  # less than the quarter of an hour
    credentials = AWSCredentials(REGION, patience=0)
    first, asked = await credentials.current(), container.asked
    container.go_on.clear()
    container.life = timedelta(hours=1)
    for _ in range(5):
        began = time.monotonic()
        assert await credentials.current() == first
        assert time.monotonic() - began < 5, "nobody waits for the role, which says nothing for longer"
        await until(lambda: container.asked == asked + 1, "the role is asked for anew")
    container.go_on.set()
    await until(lambda: credentials.key != first, "the new ones are there")
    await asyncio.gather(*(credentials.current() for _ in range(5)))
    assert container.asked == asked + 1


async def test_what_can_not_be_renewed_serves_until_it_expires(
    container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    container.life = timedelta(minutes=5)
    credentials = AWSCredentials(REGION, patience=0)
    first = await credentials.current()
    container.fails = True
    assert await credentials.current() == first

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "aibridge.providers"]

    with caplog.at_level(logging.WARNING, "aibridge.providers"):
        await until(lambda: bool(said()), "the failure is logged")
    assert "the AWS credentials can not be had" in said()[0]
    assert await credentials.current() == first
    assert SECRET not in caplog.text


async def test_expired_ones_are_not_used(container: Container) -> None:
    container.life = timedelta(seconds=3)
    credentials = AWSCredentials(REGION, patience=60)
    first = await credentials.current()
    container.life = timedelta(hours=1)
    async with asyncio.timeout(LIMIT):
        while (key := await credentials.current()) == first:  # noqa: ASYNC110 - only asking shows it
            await asyncio.sleep(0.05)
    assert key == credentials.key


async def test_none_are_found() -> None:
    credentials = AWSCredentials(REGION)
    with pytest.raises(NoCredentials, match=r"^no AWS credentials found; tried were ") as refused:
        await credentials.current()
    for source in ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "~/.aws/credentials", "container", "instance"):
        assert source in refused.value.why
    assert (credentials.key, credentials.source) == (None, "")


async def test_a_failure_stands_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = AWSCredentials(REGION, patience=1)
    with pytest.raises(NoCredentials):
        await credentials.current()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(NoCredentials):
        await credentials.current()

    async def found() -> bool:
        try:
            return (await credentials.current()).id == "AKIAENV"
        except NoCredentials:
            return False

    async with asyncio.timeout(LIMIT):
        while not await found():  # noqa: ASYNC110 - only asking shows it
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("variables", "profile", "why"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIAENV"}, None, "AWS_SECRET_ACCESS_KEY"),
        ({}, "nowhere", "The config profile (nowhere) could not be found"),
    ],
)
async def test_what_is_wrong_with_a_source_is_for_operators(
    variables: dict[str, str], profile: str | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NoCredentials) as refused:
        await AWSCredentials(REGION, profile=profile).current()
    assert why in refused.value.why
    assert why not in refused.value.message
    assert refused.value.message.endswith("the gateway's log tells more")
