"""The tools that a server lists."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from aibridge.wire import json_bytes

if TYPE_CHECKING:
    from mcp import Client

_log = logging.getLogger("aibridge.mcp")

MOST_PAGES = 200
"""A server that lists tools without end is not listened to any longer than this."""


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as its server describes it."""

    name: str
    description: str
    input_schema: bytes
    """JSON text; the server's whole schema, with its members in their order."""


async def list_tools(client: Client) -> tuple[ListedTool, ...]:
    """All tools of a server, page by page; of several with one name the first."""
    tools: dict[str, ListedTool] = {}
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            if tool.name not in tools:
                schema = json_bytes.encode(tool.input_schema)
                tools[tool.name] = ListedTool(tool.name, tool.description or "", schema)
        cursor = page.next_cursor
        if not cursor:
            break
    return tuple(tools.values())


def mend_listing(result: dict[str, Any], server: str) -> None:
    """Leave in a list of tools what is needed of each, so that one that is ill described does not cost the others.

    Output schemas are left out too: what a tool answers is for the model to judge.
    """
    listed = result.get("tools")
    if isinstance(listed, list):
        result["tools"] = [
            _mended(tool, server) for tool in listed if isinstance(tool, dict) and _is_text(tool.get("name"))
        ]


def _mended(tool: dict[str, Any], server: str) -> dict[str, Any]:
    schema = tool.get("inputSchema")
    if not (isinstance(schema, dict) and schema.get("type") == "object" and _is_valid(json_bytes.encode(schema))):
        _log.warning("MCP server %s: the tool %s has no input schema that is one", server, tool["name"])
        schema = {"type": "object"}
    description = {"description": tool["description"]} if _is_text(tool.get("description")) else {}
    return {"name": tool["name"], **description, "inputSchema": schema}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


@lru_cache(maxsize=4096)
def _is_valid(schema: bytes) -> bool:
    """Whether a schema is one; providers refuse a whole request for the sake of a single one that is not.

    It takes some milliseconds to say, and most lists are as they were before.
    """
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    decoded = msgspec.json.decode(schema)
    try:
        validator_for(decoded, Draft202012Validator).check_schema(decoded)
    except (SchemaError, RecursionError):
        return False
    return True
