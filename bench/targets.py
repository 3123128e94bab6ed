"""What is measured: the gateway, the bare pass-through and nginx, each started as its users would."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import sys
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from bench.process import Process
from bench.workload import ACTOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GATEWAY_CONFIG = """\
[server]
host = "127.0.0.1"
port = {port}

[storage]
url = "sqlite:///{database}"
journal_dir = "{journal}"

[auth]
mode = "header"
header = "X-User-ID"

[[providers]]
type = "anthropic"
name = "anthropic"
base_url = "http://127.0.0.1:{upstream}"
api_key = "sk-ant-bench-0000000000000000"

[[providers]]
type = "openai"
name = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
api_key = "sk-bench-00000000000000000000"
"""

NGINX_CONFIG = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment() -> Mapping[str, str]:
    """This process's environment without settings of the gateway's own, which would change what is measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AIBRIDGE_")}


def start_provider(folder: Path) -> Process:
    """Start the simulated provider."""
    port = free_port()
    command = [sys.executable, "-m", "bench.provider", "--port", str(port)]
    return Process(command, port, folder / "provider.log", environment())


class Target(ABC):
    """A proxy that can be started before the simulated provider, as often as needed."""

    name: str

    def __init__(self, folder: Path, upstream: int) -> None:
        self.folder = folder
        self.upstream = upstream
        self.starts = 0

    def start(self) -> Process:
        """Start it on a free port, with a folder of its own."""
        self.starts += 1
        folder = self.folder / f"{self.name}-{self.starts}"
        folder.mkdir()
        port = free_port()
        return Process(self.command(folder, port), port, folder / "log", environment())

    @abstractmethod
    def command(self, folder: Path, port: int) -> Sequence[str]:
        """The command that serves on this port; its files go into the folder."""


class Bare(Target):
    """The bare pass-through on the same stack."""

    name = "bare"

    def command(self, folder: Path, port: int) -> Sequence[str]:
        upstream = f"http://127.0.0.1:{self.upstream}"
        return [sys.executable, "-m", "bench.bare_proxy", "--port", str(port), "--upstream", upstream]


class BareAgain(Bare):
    """A second bare pass-through in the gateway's place, which shows how far the measurements themselves can be off."""

    name = "gateway"


class Gateway(Target):
    """The gateway, recording everything into SQLite by way of its journal."""

    name = "gateway"

    def __init__(self, folder: Path, upstream: int, wrapper: Sequence[str] = ()) -> None:
        super().__init__(folder, upstream)
        self.wrapper = wrapper or [str(Path(sys.executable).with_name("aibridge"))]
        self.database = folder / "none"

    def command(self, folder: Path, port: int) -> Sequence[str]:
        self.database = folder / "aibridge.db"
        config = folder / "aibridge.toml"
        config.write_text(
            GATEWAY_CONFIG.format(port=port, upstream=self.upstream, database=self.database, journal=folder / "journal")
        )
        return [*self.wrapper, "serve", "--config", str(config)]

    def recorded(self) -> int:
        """How many completed interceptions with their token usage stand in the database of the last start."""
        query = (
            "SELECT count(DISTINCT i.id) FROM aibridge_interceptions i"
            " JOIN aibridge_token_usages t ON t.interception_id = i.id"
            " WHERE i.status = 'completed' AND i.initiator_id = ?"
        )
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            found: int = database.execute(query, [ACTOR]).fetchone()[0]
            return found


class Nginx(Target):
    """nginx without buffering: what a proxy written in C costs."""

    name = "nginx"

    def command(self, folder: Path, port: int) -> Sequence[str]:
        config = folder / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(folder=folder, port=port, upstream=self.upstream))
        return [nginx_path() or "nginx", "-p", str(folder), "-c", str(config)]


def nginx_path() -> str | None:
    """Where nginx is; None where it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
