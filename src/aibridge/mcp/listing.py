"""The tools that a server lists."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aibridge.wire import json_bytes

if TYPE_CHECKING:
    from mcp import Client

_log = logging.getLogger("aibridge.mcp")

MOST_PAGES = 200
_ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as its server describes it."""

    name: str
    description: str
    input_schema: bytes
    """JSON text; the server's whole schema, with its members in their order."""


async def list_tools(client: Client, server: str) -> tuple[ListedTool, ...]:
    """All tools of a server, page by page; of several with one name the first."""
    tools: dict[str, ListedTool] = {}
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            if tool.name not in tools:
                schema = _valid(tool.input_schema, server, tool.name)
                tools[tool.name] = ListedTool(tool.name, tool.description or "", json_bytes.encode(schema))
        cursor = page.next_cursor
        if not cursor:
            break
    else:
        _log.warning("MCP server %s: it lists tools without end; those after %d pages are left out", server, MOST_PAGES)
    return tuple(tools.values())


def mend_listing(result: dict[str, Any]) -> None:
    """Leave in a list of tools what is needed of each, so that one that is ill described does not cost the others.

    Output schemas are left out too: what a tool answers is for the model to judge.
    """
    listed = result.get("tools")
    if isinstance(listed, list):
        result["tools"] = [_mended(tool) for tool in listed if isinstance(tool, dict) and _is_text(tool.get("name"))]


def _mended(tool: dict[str, Any]) -> dict[str, Any]:
    schema = tool.get("inputSchema")
    usable = isinstance(schema, dict) and schema.get("type") == "object"
    description = {"description": tool["description"]} if _is_text(tool.get("description")) else {}
    return {"name": tool["name"], **description, "inputSchema": schema if usable else _ANY_OBJECT}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _valid(schema: dict[str, Any], server: str, tool: str) -> dict[str, Any]:
    """The schema, if it is one: providers refuse a whole request for the sake of a single one that is not."""
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema, Draft202012Validator).check_schema(schema)
    except (SchemaError, RecursionError):
        _log.warning("MCP server %s: the input schema of the tool %s is none; any object is offered", server, tool)
        return _ANY_OBJECT
    return schema
