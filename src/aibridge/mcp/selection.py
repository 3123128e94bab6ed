"""Which of a server's tools are offered."""

from __future__ import annotations

import logging
import re

_log = logging.getLogger("aibridge.mcp")


class Selection:
    """The tools of one server that may be offered: those that `allow` matches (empty: all), less those of `deny`."""

    def __init__(self, server: str, allow: str, deny: str) -> None:
        self._server = server
        self._allow = re.compile(allow) if allow else None
        self._deny = re.compile(deny) if deny else None
        self._told: set[str] = set()

    def __contains__(self, name: str) -> bool:
        if self._deny and self._deny.search(name):
            if self._allow and self._allow.search(name) and name not in self._told:
                self._told.add(name)
                _log.warning("MCP server %s: the tool %s is both allowed and denied; denied", self._server, name)
            return False
        return self._allow is None or bool(self._allow.search(name))
