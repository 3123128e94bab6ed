"""A program that answers as JavaScript does when it cuts a text within a character: with half of it, escaped."""

from __future__ import annotations

import json
import sys

HALF = "an emoji in two halves: \ud83d"

ANSWERS = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "halving", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "half", "inputSchema": {"type": "object"}}]},
    "tools/call": {"content": [{"type": "text", "text": HALF}]},
}

if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        if answer := ANSWERS.get(asked["method"]):
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}), flush=True)
        elif "id" in asked:
            error = {"code": -32601, "message": "Method not found"}
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}), flush=True)
