"""A policy allows, denies, or asks the host application; in doubt a call is denied."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from aibridge.actor import Actor
from aibridge.mcp.policy import DENIED, Gatekeeper, Policy
from aibridge.mcp.toolbox import InjectedTool
from aibridge.wire.tools import OfferedTool

ADA = Actor("ada")
READ = InjectedTool("files", "stdio:files", "read", OfferedTool("bmcp_files_read", "", b'{"type":"object"}'))
UNDECIDED = "the gateway could not decide whether this call is allowed"


async def refusal(policy: Policy, arguments: dict[str, Any] | None = None) -> str | None:
    gatekeeper = Gatekeeper(policy, time_limit=0.2)
    try:
        return await gatekeeper.refusal(ADA, READ, arguments or {})
    finally:
        gatekeeper.close()


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("allow", None),
        ("deny", DENIED),
        ({"bmcp_files_read": "allow"}, None),
        ({"bmcp_files_read": "deny", "*": "allow"}, DENIED),
        ({"*": "allow"}, None),
        ({"bmcp_files_write": "allow"}, DENIED),
        (lambda *_: True, None),
        (lambda *_: False, DENIED),
        (lambda *_: None, DENIED),
        (lambda *_: "not on Sundays", f"{DENIED}: not on Sundays"),
        (lambda *_: 1 / 0, UNDECIDED),
    ],
)
async def test_a_rule_decides(policy: Policy, said: str | None) -> None:
    assert await refusal(policy) == said


async def test_the_host_sees_who_asks_for_what() -> None:
    async def only_ada_and_short(actor: Actor, tool: InjectedTool, arguments: Mapping[str, Any]) -> bool:
        return actor.id == "ada" and tool.name == "read" and arguments["lines"] < 100

    assert await refusal({"*": only_ada_and_short}, {"lines": 10}) is None
    assert await refusal({"*": only_ada_and_short}, {"lines": 1000}) == DENIED
    assert await refusal({"*": only_ada_and_short}) == UNDECIDED


async def test_who_does_not_answer_in_time_has_denied() -> None:
    released = threading.Event()

    async def never(*_: object) -> bool:
        await asyncio.sleep(3600)
        return True

    def blocked(*_: object) -> bool:
        return released.wait(30)

    assert await refusal(never) == UNDECIDED
    assert await refusal(blocked) == UNDECIDED
    released.set()
