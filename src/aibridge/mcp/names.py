"""Under which names tools are offered."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

from aibridge.mcp.toolbox import PREFIX

LONGEST = 64
"""Characters; what the strictest dialect takes (https://platform.openai.com/docs/api-reference/chat/create)."""

_OTHERS = re.compile(r"[^a-zA-Z0-9_-]")


def offered_names(tools: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The name of each tool, which is given as its server's name and its own.

    A name that is too long, or that several tools would have, ends in a hash of server and tool: it depends on nothing
    else, so that it never comes to mean another tool.
    """
    plain = {tool: _OTHERS.sub("_", f"{PREFIX}{tool[0]}_{tool[1]}") for tool in tools}
    wanted = Counter(plain.values())
    return {
        tool: name if len(name) <= LONGEST and wanted[name] == 1 else _with_hash(name, tool)
        for tool, name in plain.items()
    }


def _with_hash(name: str, tool: tuple[str, str]) -> str:
    end = "_" + hashlib.sha256("\0".join(tool).encode("utf-8", "replace")).hexdigest()[:8]
    return name[: LONGEST - len(end)] + end
