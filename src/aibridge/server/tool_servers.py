"""MCP servers as the settings describe them. Imported only where there are any, since their packages are heavy."""

from __future__ import annotations

from aibridge.mcp.config import ClientCredentials, ServerConfig
from aibridge.mcp.policy import Policy
from aibridge.mcp.servers import ToolServers
from aibridge.server.connecting import connecting_tools
from aibridge.server.importing import imported
from aibridge.server.settings import MCPServer, Settings
from aibridge.tracer import NO_TRACER, Tracer


def tool_servers(settings: Settings, tracer: Tracer = NO_TRACER) -> ToolServers:
    """The servers, not yet connected.

    Raises `SettingsError` where the policy can not be loaded, or a certificate not be used.
    """
    return ToolServers(
        [_config(each) for each in settings.mcp_servers],
        call_timeout=settings.tools.call_timeout,
        max_result_size=settings.tools.max_result_size,
        policy=policy_named(settings.tools.policy),
        connecting=connecting_tools(settings.upstream, settings.mcp_servers),
        tracer=tracer,
    )


def _config(server: MCPServer) -> ServerConfig:
    oauth = None
    if server.oauth_client_id and server.oauth_client_secret and server.oauth_issuer:
        oauth = ClientCredentials(
            client_id=server.oauth_client_id,
            client_secret=server.oauth_client_secret.reveal(),
            issuer=server.oauth_issuer,
        )
    return ServerConfig(
        name=server.name,
        url=server.url,
        command=server.command,
        environment={name: value.reveal() for name, value in server.environment.items()},
        transport=server.transport,
        headers={name: value.reveal() for name, value in server.headers.items()},
        oauth=oauth,
        tool_allow=server.tool_allow,
        tool_deny=server.tool_deny,
    )


def policy_named(told: str) -> Policy:
    """`allow`, `deny`, or what `package.module:name` names: a callable, or rules by tool. Raises `SettingsError`."""
    if told == "allow":
        return "allow"
    if told == "deny":
        return "deny"
    policy: Policy = imported("tools.policy", told, "allow, deny")
    return policy
