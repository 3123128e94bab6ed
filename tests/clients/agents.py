"""Coding agents, run headless in a home of their own."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parents[2] / ".cache" / "clients" / "node_modules" / ".bin"
"""Where `scripts/install-clients` puts them."""

ACTOR = "ada@example.com"
KEY = "sk-ada-0123456789abcdef"
"""The agents' own credential, and how the gateway shows it."""
HINT = "sk-a...cdef"

_LIMIT = 90
"""Seconds that an agent may take for one prompt; it takes about one."""


class AgentFailedError(Exception):
    """The agent ended with an error; the message is what it said."""


@dataclass
class Agent:
    """What agents have in common: a home, and a folder that they work in."""

    root: Path
    gateway: str
    """The gateway's URL."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables beside those that the agent needs."""

    def __post_init__(self) -> None:
        self.home = self.root / "home"
        self.work = self.root / "work"
        self.home.mkdir()
        self.work.mkdir()

    def run(self, program: str, *arguments: str, **environment: str) -> str:
        """What the program printed; raises `AgentFailedError` where it failed."""
        known = {"PATH": os.environ["PATH"], "HOME": str(self.home), **environment, **self.environment}
        ended = subprocess.run(
            [PROGRAMS / program, *arguments],
            cwd=self.work,
            env=known,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
        if ended.returncode:
            raise AgentFailedError(f"exit status {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
        return ended.stdout


@dataclass
class Answer:
    """What an agent answered to a prompt."""

    text: str
    session: str


class ClaudeCode(Agent):
    """Claude Code (https://code.claude.com/docs/en/headless)."""

    model = "claude-sonnet-5-5"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._credential = {"ANTHROPIC_API_KEY": KEY}
        self._headers = f"X-User-ID: {ACTOR}"

    def sign_in_with_a_plan(self, token: str) -> None:
        """Have the token that `claude setup-token` gives to who has a plan, instead of a key."""
        self._credential = {"CLAUDE_CODE_OAUTH_TOKEN": token}
        self._headers += "\nX-AIBridge-Token: token-of-ada"

    def ask(self, prompt: str, *options: str) -> Answer:
        """Run one prompt, with every tool allowed that the tests use."""
        printed = self.run(
            "claude",
            *("-p", "--output-format", "json", "--model", self.model, *options),
            *("--allowedTools", "Read,Write,Bash,Agent", "--", prompt),
            ANTHROPIC_BASE_URL=f"{self.gateway}/anthropic",
            **self._credential,
            ANTHROPIC_CUSTOM_HEADERS=self._headers,
            CLAUDE_CONFIG_DIR=str(self.home / ".claude"),
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            CLAUDE_CODE_MAX_RETRIES="1",
        )
        said = json.loads(printed)
        return Answer(said["result"], said["session_id"])


_CUSTOM_PROVIDER = """
model_provider = "gateway"
[model_providers.gateway]
name = "gateway"
base_url = "{gateway}/openai/v1"
env_key = "CODEX_API_KEY"
http_headers = {{ "X-User-ID" = "{actor}" }}
request_max_retries = 0
stream_max_retries = 0
"""

_SIGNED_IN = """
model_provider = "gateway"
[model_providers.gateway]
name = "gateway"
base_url = "{gateway}/openai/v1"
requires_openai_auth = true
http_headers = {{ "X-User-ID" = "{actor}", "X-AIBridge-Token" = "token-of-ada" }}
request_max_retries = 0
stream_max_retries = 0
"""

_BUILT_IN_PROVIDER = """
openai_base_url = "{gateway}/openai/v1"
chatgpt_base_url = "{gateway}/chatgpt"
"""


class Codex(Agent):
    """Codex (https://developers.openai.com/codex/noninteractive), with the gateway as a provider of its own."""

    model = "gpt-5.5"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._configure(_CUSTOM_PROVIDER)
        self._credential = {"CODEX_API_KEY": KEY}

    def use_built_in_provider(self) -> None:
        """Reach the gateway as if it were OpenAI; no header can be set then."""
        self._configure(_BUILT_IN_PROVIDER)

    def use_its_login(self) -> None:
        """Reach the gateway with the credential of a login, and say by headers who asks."""
        self._configure(_SIGNED_IN)

    def log_in_with_chatgpt(self) -> None:
        """Leave what a login leaves behind, instead of a key; nobody here checks its signature."""
        of_chatgpt = {"chatgpt_account_id": "account-1", "chatgpt_plan_type": "pro", "chatgpt_user_id": "user-1"}
        claims = {"email": ACTOR, "exp": int(time.time()) + 3600, "https://api.openai.com/auth": of_chatgpt}
        token = ".".join(_base64url(part) for part in ({"alg": "none"}, claims, {}))
        tokens = {"id_token": token, "access_token": token, "refresh_token": "none", "account_id": "account-1"}
        login = {"auth_mode": "chatgpt", "tokens": tokens, "last_refresh": datetime.now(UTC).isoformat()}
        (self.home / "auth.json").write_text(json.dumps(login))
        self._credential = {}

    def ask(self, prompt: str, *options: str) -> Answer:
        """Run one prompt; `options` are those of `codex exec`, or `resume` with its own."""
        printed = self.run(
            "codex",
            *("exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
            *("-m", self.model, *options, prompt),
            CODEX_HOME=str(self.home),
            **self._credential,
        )
        events: list[dict[str, Any]] = [json.loads(line) for line in printed.splitlines()]
        (session,) = [event["thread_id"] for event in events if event["type"] == "thread.started"]
        said = [event["item"] for event in events if event["type"] == "item.completed"]
        return Answer([item["text"] for item in said if item["type"] == "agent_message"][-1], session)

    def _configure(self, provider: str) -> None:
        configuration = provider.format(gateway=self.gateway, actor=ACTOR)
        (self.home / "config.toml").write_text(configuration)


def _base64url(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
