"""The dialects, sans-I/O: bytes in; facts, and bytes for the other side, out."""
