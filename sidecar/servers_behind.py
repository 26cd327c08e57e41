"""From the settings of one MongoDB MCP server to the upstream that calls are forwarded to."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Final

from sidecar import os_environment, set_up, settings
from sidecar.commands import exports
from sidecar.enforcement import EnforcementPoint
from sidecar.errors import ConfigurationError
from sidecar.model import Permit, ToolCall
from sidecar.outgoing import demand_protected
from sidecar.readiness import Decider, ManagedUpstream
from sidecar.server_settings import Server
from sidecar.settings import Settings
from sidecar.upstream import (
    ConfirmingUpstream,
    HttpUpstream,
    Opening,
    Renewal,
    StdioPool,
    StdioUpstream,
    mongodb_environment,
    read_further,
)


def connect(entry: Server, unprotected: Collection[str] = ()) -> HttpUpstream | ConfirmingUpstream:
    """Return the upstream of one configured server, not yet started.

    Args:
        entry: the settings of the server.
        unprotected: the connections that may go without TLS (``insecure_connections``); what was read at the start has
            been looked at, and this is for what is read again.

    Raises:
        ConfigurationError: a file cannot be read, or holds what cannot be used.
    """
    timeout_s = entry.timeout_ms / 1000
    if entry.url:
        file = entry.headers_file
        return HttpUpstream(
            entry.name,
            entry.url,
            set_up.headers(file) if file is not None else {},
            timeout_s=timeout_s,
            renewed=partial(set_up.headers, file) if file is not None else None,
            prefer_stateless=entry.stateless,
        )
    renewal = child_renewal(entry, unprotected)
    usual = Opening.DISCOVERY if entry.stateless else Opening.HANDSHAKE
    asking, *others = (
        StdioUpstream(
            entry.name, entry.command, _environment(entry), timeout_s=timeout_s, renewal=renewal, opening=opening
        )
        for opening in (Opening.ASKING, *repeat(usual, entry.processes))
    )
    plain = others[0] if len(others) == 1 else StdioPool(others, _is_remembered)
    return ConfirmingUpstream(
        plain,
        asking,
        lambda call: entry.asks_for(call.name, _stages(call)),
        required=entry.require_confirmation,
        wait_s=timeout_s,
    )


def tell_of_changes(pep: EnforcementPoint, decisions: Decider, upstreams: Mapping[str, ManagedUpstream]) -> None:
    """Have clients told when their lists change, with what a server offers or with policies, and of resources."""
    decisions.on_served(pep.policies_changed)
    for name, upstream in upstreams.items():
        upstream.on_tools_changed(pep.tools_changed)
        upstream.on_prompts_changed(pep.prompts_changed)
        upstream.on_updated(partial(pep.resource_updated, name))


def _is_remembered(permit: Permit) -> bool:
    """Whether a call makes or reads an export, which one child has."""
    return permit.method in {"resources/read", "resources/subscribe"} or exports(permit.call.name)


def _stages(call: ToolCall) -> Collection[str]:
    """Return the stages of a call's pipeline, by name."""
    pipeline = call.arguments.get("pipeline")
    stages = pipeline if isinstance(pipeline, list) else ()
    return {name for stage in stages if isinstance(stage, dict) for name in stage}


_OF_THE_CHILD: Final = frozenset({"connection_string_file", "environment_file", "api_client_secret_file"})


def child_renewal(entry: Server, unprotected: Collection[str]) -> Renewal:
    """Say how the environment of a child is read again; what is read is as protected as the start demands."""
    return Renewal(
        environment=lambda: _environment(entry, partial(_protected, entry, unprotected)),
        files=[file for setting, file in entry.files().items() if file is not None and setting in _OF_THE_CHILD],
    )


def views_connections(config: Settings) -> list[str]:
    """Return the connection strings that views are learned with, as they are now, each once.

    Raises:
        ConfigurationError: one cannot be read, or goes to another machine unprotected and is not named.
    """
    found = []
    for entry in config.servers:
        if entry.views_connection_string is not None or entry.views_connection_string_file is not None:
            with set_up.naming(f"servers ({entry.name})"):
                text = settings.secret(entry.views_connection_string, entry.views_connection_string_file)
            demand_protected(f"servers.{entry.name}.views_connection_string", text, config.insecure_connections)
            found.append(text)
    return list(dict.fromkeys(found))


def _protected(entry: Server, unprotected: Collection[str], connection_string: str) -> None:
    demand_protected(f"servers.{entry.name}.connection_string", connection_string, unprotected)


def _environment(entry: Server, require: Callable[[str], None] = lambda _: None) -> dict[str, str]:
    """Return the environment of a child, of the settings' files as they are now.

    Args:
        entry: the settings of the server.
        require: raises where the connection string may not be used.

    Raises:
        ConfigurationError: a file cannot be read, or holds what cannot be used.
    """
    connection_string = settings.secret(entry.connection_string, entry.connection_string_file)
    require(connection_string)
    atlas = None
    if entry.api_client_id:
        atlas = (entry.api_client_id, settings.secret(entry.api_client_secret, entry.api_client_secret_file))
    environment = mongodb_environment(
        connection_string,
        read_only=entry.read_only,
        app_name=f"mcp-sidecar-{entry.name}",
        tool_groups=entry.tool_groups,
        atlas=atlas,
        confirmed_tools=entry.confirmation_required_tools,
    )
    further = _further(entry.environment_file) if entry.environment_file is not None else {}
    return {"PATH": os_environment.search_path(), **further, **environment}


def _further(file: Path) -> dict[str, str]:
    try:
        return read_further(settings.secret(None, file))
    except ConfigurationError as error:
        raise ConfigurationError(f"environment_file: {error.detail}") from None
