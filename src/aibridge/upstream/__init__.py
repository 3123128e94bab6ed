"""Reaching a provider: connections, time limits, retries."""
