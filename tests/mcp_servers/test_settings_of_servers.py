"""What can be said of a server in the settings, and what can not be said together."""

from __future__ import annotations

from pathlib import Path

import pytest

from aibridge.errors import SettingsError
from aibridge.mcp.config import ServerConfig
from aibridge.server import loading, settings


def load(tmp_path: Path, toml: str) -> settings.MCPServer:
    file = tmp_path / "aibridge.toml"
    file.write_text(f'[[mcp_servers]]\nname = "s"\n{toml}')
    (server,) = loading.load(file, {}).mcp_servers
    return server


def test_secrets_are_read_and_not_shown(tmp_path: Path) -> None:
    program = load(tmp_path, 'command = ["x"]\nenvironment = { KEY = "s3cret" }')
    assert program.environment["KEY"].reveal() == "s3cret"
    oauth = 'oauth_client_id = "a"\noauth_client_secret = "s3cret"\noauth_issuer = "https://login.example.com"'
    site = load(tmp_path, f'url = "https://x/mcp"\ntransport = "sse"\n{oauth}')
    assert site.oauth_client_secret
    assert site.oauth_client_secret.reveal() == "s3cret"
    assert "s3cret" not in repr(program) + repr(site)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('command = ["x"]\ntransport = "sse"', "a server that is started has no transport"),
        ('command = ["x"]\noauth_client_id = "a"', "a server that is started has no oauth_client_id"),
        ('url = "https://x/"\nenvironment = { A = "b" }', "a server that has a url has no environment"),
        ('url = "https://x/"\nenvironment = 3', "a server that has a url has no environment"),
        ('command = ["x"]\nenvironment = { A = 3 }', "a value is not a text"),
        ('url = "https://x/"\ntransport = "stdio"', 'allowed is "streamable-http" or "sse"'),
        ('url = "https://x/"\noauth_client_id = "a"', "oauth_client_secret, oauth_issuer missing"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, toml: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, toml)
    assert said in str(caught.value)


def test_a_server_needs_one_place() -> None:
    for place in ({}, {"url": "https://x/", "command": ["x"]}):
        with pytest.raises(ValueError, match="needs either a url or a command"):
            ServerConfig(name="s", **place)  # type: ignore[arg-type]


def test_a_place_is_shown_without_secrets() -> None:
    shown = ServerConfig(name="s", url="https://user:s3cret@x.example.com:8443/mcp?key=s3cret#s3cret").location
    assert shown == "https://x.example.com:8443/mcp"
    assert ServerConfig(name="s", command=["npx", "--key=s3cret"]).location == "stdio:npx"
