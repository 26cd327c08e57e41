"""The settings of one MongoDB MCP server."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import Field, SecretStr, model_validator

from sidecar.commands import CATALOG, GenericTool, GenericTools, ToolGroup, generic
from sidecar.model import JsonObject, TargetKind
from sidecar.questions import QuestionKind
from sidecar.settings_group import Milliseconds, SettingsGroup

ASKED_BY_DEFAULT: Final = frozenset(
    {
        "atlas-create-access-list",
        "atlas-create-db-user",
        "atlas-streams-manage",
        "atlas-streams-teardown",
        "delete-many",
        "drop-collection",
        "drop-database",
        "drop-index",
    }
)
"""Tools that MongoDB MCP server 3.0.4 asks a confirmation for unless it is told otherwise."""

_WRITING: Final = frozenset({"$out", "$merge"})


class GenericToolSettings(SettingsGroup):
    """A tool of a server that is outside of the catalog."""

    name: str
    """Its exact name; no tool of the catalog, and none that looks like one."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The digest of what clients are shown of it, as `mcp-sidecar inspect --tools` prints it. A tool that differs from
    it is refused."""
    policy_arguments: tuple[str, ...] = Field(default=(), max_length=generic.MAX_POINTERS)
    """JSON pointers to the arguments that policies see, such as `/region`, in `input.command.arguments`. A call in
    which one of them is a list, an object or a long text is refused. No argument is logged or recorded."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if fault := generic.name_fault(self.name):
            msg = f"{self.name!r} {fault}"
            raise ValueError(msg)
        _check_pointers(self.policy_arguments)
        return self

    def tool(self) -> GenericTool:
        """Return the tool."""
        return GenericTool(name=self.name, pin=self.sha256, pointers=self.policy_arguments)


class GenericPromptSettings(SettingsGroup):
    """A prompt of a server."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    """Its exact name."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The digest of what clients are shown of it, as `mcp-sidecar inspect --tools` prints it."""
    policy_arguments: tuple[str, ...] = Field(default=(), max_length=generic.MAX_POINTERS)
    """JSON pointers to the arguments that policies see, as for tools."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        _check_pointers(self.policy_arguments)
        return self

    def prompt(self) -> GenericTool:
        """Return the prompt."""
        return GenericTool(name=self.name, pin=self.sha256, pointers=self.policy_arguments, kind=TargetKind.PROMPT)


class GenericResourceSettings(SettingsGroup):
    """A resource of a server, or several by a template of their URIs."""

    uri: str
    """Its URI, or a template with variables such as `{id}` (RFC 6570 level 1). A variable stands for letters, digits
    and `-._~`. Not `exported-data:`, whose resources belong to the callers that made them."""
    name: str = Field(min_length=1, max_length=128)
    """What lists call it."""
    description: str = Field(default="", max_length=1024)
    """What lists say of it; nothing that the server says is shown."""
    mime_type: str = Field(default="", max_length=128)
    """What lists say that it is."""
    policy_arguments: tuple[str, ...] = Field(default=(), max_length=generic.MAX_POINTERS)
    """The variables of the template that policies see, as JSON pointers: `/id`."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            template = generic.uri_template(self.uri)
        except ValueError as error:
            msg = f"{self.uri!r} {error}"
            raise ValueError(msg) from None
        if self.uri.startswith("exported-data:"):
            msg = "exported-data: is for exports, which need no setting but the tool group"
            raise ValueError(msg)
        _check_pointers(self.policy_arguments)
        names = set() if template is None else set(template.groupindex)
        if unknown := [one for one in self.policy_arguments if one.removeprefix("/") not in names]:
            msg = f"policy_arguments: {unknown[0]!r} is no variable of the template"
            raise ValueError(msg)
        return self

    def resource(self) -> GenericTool:
        """Return the resource."""
        template = generic.uri_template(self.uri)
        shown: JsonObject = {"uri" if template is None else "uriTemplate": self.uri, "name": self.name}
        shown |= {"description": self.description} if self.description else {}
        shown |= {"mimeType": self.mime_type} if self.mime_type else {}
        return GenericTool(
            name=self.uri,
            pin="",
            pointers=self.policy_arguments,
            kind=TargetKind.RESOURCE,
            shown=shown,
            template=template,
        )


def _check_pointers(pointers: tuple[str, ...]) -> None:
    for pointer in pointers:
        if fault := generic.pointer_fault(pointer):
            msg = f"policy_arguments: {pointer!r} {fault}"
            raise ValueError(msg)
    if len(set(pointers)) < len(pointers):
        msg = "policy_arguments names an argument twice"
        raise ValueError(msg)


class Server(SettingsGroup):
    """One MongoDB MCP server instance; policy names it, callers cannot."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """What the routes of the platform's policy data call it."""
    command: tuple[str, ...] = ()
    """The command line of a child process that speaks MCP on standard input and output; give this or `url`. The process
    cannot gain privileges: `sudo` does not work in it."""
    url: str = ""
    """The Streamable HTTP endpoint of a server that the sidecar does not start."""
    headers_file: Path | None = None
    """A file of lines `Name: value`, the headers that are sent to `url`, such as its shared secret."""
    stateless: bool = False
    """Speak MCP 2026-07-28, which has no sessions, with a server that has both eras. One that has a single era is
    spoken to in that one."""
    connection_string: SecretStr | None = None
    """The database and its user, for `command`; only the child process gets it, in its environment. The sidecar dials
    its hosts, without user and password, to say on `/readyz` whether they answer."""
    connection_string_file: Path | None = None
    """The same as a file, which is safer: other processes of the same user can read an environment."""
    views_connection_string: SecretStr | None = None
    """A connection, with a separate user, over which the sidecar lists the views of this server's databases
    (`listCollections`); without it, only the views that the platform's policy data declares are known."""
    views_connection_string_file: Path | None = None
    """The same as a file."""
    read_only: bool = True
    """Start the child without its writing tools. Also limit the rights of its database user, which decide in the
    end."""
    processes: int = Field(default=1, ge=1, le=32)
    """How many children of `command` share the calls. Exports are made at one child for each session (without sessions:
    for each user and agent), and read at the child that made them. More than one does not go with the tool group
    `connect`."""
    timeout_ms: Milliseconds = 60_000
    """How long a call may take."""
    tool_groups: tuple[ToolGroup, ...] = ()
    """Groups of tools that this server has besides those of the database. The child of `command` gets exactly these; of
    a server behind `url`, no others are used. Policy decides each call too."""
    generic_tools: tuple[GenericToolSettings, ...] = Field(default=(), max_length=256)
    """Tools of this server that are outside of the catalog. Each call is one access of kind `execute` with the tool's
    name as its target, which nobody has until policy grants it ([generic tools](../generic-tools.md))."""
    generic_prompts: tuple[GenericPromptSettings, ...] = Field(default=(), max_length=256)
    """Prompts of this server; each use is one access of kind `execute` with the target kind `prompt`."""
    generic_resources: tuple[GenericResourceSettings, ...] = Field(default=(), max_length=256)
    """Resources of this server; each read is one access of kind `execute` with the target kind `resource`, and its URI
    as it stands here."""
    server_questions: tuple[QuestionKind, ...] = ()
    """What this server may ask clients during calls of its generic tools, prompts and resources: `elicitation` (the
    user fills in a form), `sampling` (the client's model), `roots` (the client's folders). Goes with `url`; policy
    decides each kind too, and nobody has any by default ([server questions](../server-questions.md))."""
    environment_file: Path | None = None
    """A file of lines `NAME=value`, further environment of the child of `command`, such as for Kerberos or a proxy.
    [deploy.md](../deploy.md) lists the names; any other is refused."""
    confirmation_required_tools: tuple[str, ...] | None = None
    """Tools that the child of `command` asks a confirmation for; without it, the server's own list. Its questions reach
    clients that can be asked (elicitation; [deploy.md](../deploy.md#confirmations))."""
    require_confirmation: bool = False
    """Refuse a call that the child of `command` would ask about where the client cannot be asked; else it is carried
    out unasked."""
    api_client_id: str = ""
    """The Atlas service account of the tool group `atlas`, for `command`; only the child process gets it."""
    api_client_secret: SecretStr | None = None
    """Its secret; only the child process gets it, in its environment."""
    api_client_secret_file: Path | None = None
    """The same as a file."""

    @model_validator(mode="after")
    def _one_transport(self) -> Self:
        if bool(self.command) == bool(self.url):
            msg = "give exactly one of command and url"
            raise ValueError(msg)
        given = [source for source in (self.connection_string, self.connection_string_file) if source is not None]
        if self.command and len(given) != 1:
            msg = "a command needs exactly one of connection_string and connection_string_file"
            raise ValueError(msg)
        if self.url and given:
            msg = "connection_string goes with command; a server behind url has its own"
            raise ValueError(msg)
        if self.command and self.headers_file is not None:
            msg = "headers_file goes with url, not with command"
            raise ValueError(msg)
        if self.views_connection_string is not None and self.views_connection_string_file is not None:
            msg = "give at most one of views_connection_string and views_connection_string_file"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _of_a_child(self) -> Self:
        if self.url and (self.environment_file is not None or self.confirmation_required_tools is not None):
            msg = "environment_file and confirmation_required_tools go with command; a server behind url has its own"
            raise ValueError(msg)
        if self.command and self.server_questions:
            msg = "server_questions goes with url; what a child asks on its output does not say during which call"
            raise ValueError(msg)
        if self.server_questions and not self._generic():
            msg = "server_questions is about generic tools, prompts and resources, and this server has none"
            raise ValueError(msg)
        if self.url and self.require_confirmation:
            msg = "require_confirmation goes with command; what a server behind url asks reaches nobody"
            raise ValueError(msg)
        if unknown := sorted(set(self.confirmation_required_tools or ()) - CATALOG.keys()):
            msg = f"confirmation_required_tools: {', '.join(unknown)} is not a tool of the server"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _of_several_children(self) -> Self:
        if self.processes == 1:
            return self
        if self.url:
            msg = "processes goes with command; how many there are behind url is not the sidecar's to say"
            raise ValueError(msg)
        if ToolGroup.CONNECT in self.tool_groups:
            msg = "processes must be 1 with the tool group connect, whose connections are in one child"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _service_account(self) -> Self:
        secrets = [one for one in (self.api_client_secret, self.api_client_secret_file) if one is not None]
        if not (self.command and ToolGroup.ATLAS in self.tool_groups):
            if self.api_client_id or secrets:
                msg = "api_client_id and api_client_secret go with command and the tool group atlas"
                raise ValueError(msg)
        elif not self.api_client_id or len(secrets) != 1:
            msg = "the tool group atlas needs api_client_id and one of api_client_secret and api_client_secret_file"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        keys = [one.key for one in self._generic()]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            msg = f"generic_tools, generic_prompts, generic_resources: {', '.join(twice)} occurs twice"
            raise ValueError(msg)
        return self

    def _generic(self) -> list[GenericTool]:
        named = [tool.tool() for tool in self.generic_tools]
        named += [prompt.prompt() for prompt in self.generic_prompts]
        return named + [resource.resource() for resource in self.generic_resources]

    def generic_by_name(self) -> GenericTools:
        """Return the tools, prompts and resources outside of the catalog by what they go by."""
        return {one.key: one for one in self._generic()}

    def asks_for(self, tool: str, stages: Collection[str] = ()) -> bool:
        """Whether the child would ask for a confirmation of a call; what a server behind `url` does is not known.

        Args:
            tool: its tool.
            stages: those of its pipeline. A stage that writes is always asked about (MongoDB MCP server 3.0.4).
        """
        asked = ASKED_BY_DEFAULT if self.confirmation_required_tools is None else self.confirmation_required_tools
        return bool(self.command) and (tool in asked or not _WRITING.isdisjoint(stages))

    def files(self) -> Mapping[str, Path | None]:
        """Return the files that are named, by setting."""
        return {
            "connection_string_file": self.connection_string_file,
            "headers_file": self.headers_file,
            "views_connection_string_file": self.views_connection_string_file,
            "environment_file": self.environment_file,
            "api_client_secret_file": self.api_client_secret_file,
        }


class Views(SettingsGroup):
    """How the definitions of views are kept, where a server has a `views_connection_string`."""

    refresh_s: int = Field(default=30, ge=1, le=3600)
    """Seconds after which they are fetched again; definitions older than twice this are never used."""
    timeout_ms: Milliseconds = 2000
    """How long a fetch may take; a call that waits for a failed fetch is refused."""
