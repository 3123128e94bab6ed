"""Keeping what was seen: the recorder protocol, the journal, and the stores behind it."""
