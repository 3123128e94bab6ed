"""Coding agents, run headless in a home of their own."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
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

    def ask(self, prompt: str, *options: str) -> Answer:
        """Run one prompt, with every tool allowed that the tests use."""
        printed = self.run(
            "claude",
            *("-p", "--output-format", "json", "--model", self.model, *options),
            *("--allowedTools", "Read,Write,Bash,Agent", "--", prompt),
            ANTHROPIC_BASE_URL=f"{self.gateway}/anthropic",
            ANTHROPIC_API_KEY=KEY,
            ANTHROPIC_CUSTOM_HEADERS=f"X-User-ID: {ACTOR}",
            CLAUDE_CONFIG_DIR=str(self.home / ".claude"),
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            CLAUDE_CODE_MAX_RETRIES="1",
        )
        said = json.loads(printed)
        return Answer(said["result"], said["session_id"])


class Codex(Agent):
    """Codex (https://developers.openai.com/codex/noninteractive)."""

    model = "gpt-5.5"
    provider = """
        model_provider = "gateway"
        [model_providers.gateway]
        name = "gateway"
        base_url = "{gateway}/openai/v1"
        env_key = "CODEX_API_KEY"
        http_headers = {{ "X-User-ID" = "{actor}" }}
        request_max_retries = 0
        stream_max_retries = 0
    """

    def ask(self, prompt: str, *options: str) -> Answer:
        """Run one prompt; `options` are those of `codex exec`, or `resume` with its own."""
        configuration = self.home / "config.toml"
        configuration.write_text(self.provider.format(gateway=self.gateway, actor=ACTOR))
        printed = self.run(
            "codex",
            *("exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
            *("-m", self.model, *options, prompt),
            CODEX_HOME=str(self.home),
            CODEX_API_KEY=KEY,
        )
        events: list[dict[str, Any]] = [json.loads(line) for line in printed.splitlines()]
        (session,) = [event["thread_id"] for event in events if event["type"] == "thread.started"]
        said = [event["item"] for event in events if event["type"] == "item.completed"]
        return Answer([item["text"] for item in said if item["type"] == "agent_message"][-1], session)
