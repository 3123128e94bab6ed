"""aibridge: the gateway between AI clients and their providers.

`RequestBridge` is an ASGI application; hand it providers and a `Recorder`, and say who asks with `as_actor`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aibridge.actor import Actor, as_actor
    from aibridge.bridge.bridge import RequestBridge
    from aibridge.errors import Fault, RecordingError
    from aibridge.http_client.connecting import Connecting, Proxies
    from aibridge.observe.metrics import Metrics
    from aibridge.providers import (
        AnthropicProvider,
        BedrockProvider,
        CopilotProvider,
        Credential,
        ModelRoute,
        OpenAIProvider,
        Provider,
    )
    from aibridge.recording.contents import Redaction
    from aibridge.recording.recorder import Recorder
    from aibridge.recording.secrets import KnownSecrets
    from aibridge.upstream.breaker import BreakerPolicy
    from aibridge.upstream.upstream import TimeLimits

__all__ = [
    "Actor",
    "AnthropicProvider",
    "BedrockProvider",
    "BreakerPolicy",
    "Connecting",
    "CopilotProvider",
    "Credential",
    "Fault",
    "KnownSecrets",
    "Metrics",
    "ModelRoute",
    "OpenAIProvider",
    "Provider",
    "Proxies",
    "Recorder",
    "RecordingError",
    "Redaction",
    "RequestBridge",
    "TimeLimits",
    "as_actor",
]

_HOMES = {
    "aibridge.actor": ("Actor", "as_actor"),
    "aibridge.bridge.bridge": ("RequestBridge",),
    "aibridge.errors": ("Fault", "RecordingError"),
    "aibridge.observe.metrics": ("Metrics",),
    "aibridge.providers": (
        "AnthropicProvider",
        "BedrockProvider",
        "CopilotProvider",
        "Credential",
        "ModelRoute",
        "OpenAIProvider",
        "Provider",
    ),
    "aibridge.recording.contents": ("Redaction",),
    "aibridge.recording.recorder": ("Recorder",),
    "aibridge.recording.secrets": ("KnownSecrets",),
    "aibridge.upstream.breaker": ("BreakerPolicy",),
    "aibridge.http_client.connecting": ("Connecting", "Proxies"),
    "aibridge.upstream.upstream": ("TimeLimits",),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for, so that the command line starts at once."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
