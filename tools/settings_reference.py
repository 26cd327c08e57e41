"""Writes docs/reference/settings.md from the models of ``sidecar.settings``: names, types, defaults, meanings.

``python tools/settings_reference.py`` writes the page; with ``--check`` it only says whether the page is up to date
(exit status 1 if it is not). A setting without a docstring is an error.
"""

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from enum import Enum
from functools import cache
from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path, PurePath
from textwrap import dedent
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sidecar.os_environment import CONFIG_VARIABLE, PREFIX
from sidecar.settings import Settings
from tools.generated_page import write_or_check

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "settings.md"

INTRODUCTION: Final = """\
# Settings

*Generated from `sidecar/settings.py` by `tools/settings_reference.py`; do not edit.*

A setting is an environment variable, or a key of the TOML file that `{config}` names; the variable wins. A group's
setting is the group, two underscores and the key: `{prefix}AUDIT__STORE` is `store` under `[audit]`. Lists are given
whole, as JSON: `{prefix}SCOPES='["mongodb:read"]'`. A name that is not on this page is refused (exit status 78), and so
is a value that does not fit. The error names the setting, never its value.

🔑 marks a secret. Each can be a file (`…_file`), which is safer, because no environment holds it. White space around it
does not count. Secrets are never logged, traced, recorded or sent to a caller.

OpenTelemetry's own variables work as its specification says. Traces go to
`OTEL_EXPORTER_OTLP_ENDPOINT` (OTLP over HTTP with protobuf, port 4318); without it nothing is sent. Metrics are at
`/metrics`; they are also sent if `OTEL_METRICS_EXPORTER=otlp`, or an endpoint for metrics, is set.
`MDB_MCP_CONNECTION_STRING` names the database of `mcp-sidecar demo`, and only there.
"""

SECRET_FILES: Final = frozenset({"environment_file", "headers_file", "secret_file", "token_file"})
"""Files that hold secrets and have no twin that is a value; twins (``x`` and ``x_file``) are found by type."""

TYPES: Final[dict[Any, str]] = {
    str: "text",
    int: "integer",
    bool: "boolean",
    Path: "path",
    SecretStr: "text",
    IPv4Network: "address or network",
}


def main() -> int:
    """Write the page, or check it."""
    return write_or_check(PAGE, render, described=__doc__, script="tools/settings_reference.py")


def render() -> str:
    """Return the whole page."""
    introduction = INTRODUCTION.format(config=CONFIG_VARIABLE, prefix=PREFIX)
    return "\n".join([introduction, *_group("The sidecar", Settings, "", PREFIX)])


def _group(title: str, model: type[BaseModel], path: str, variable: str) -> Iterator[str]:
    """Yield one group's table, then the tables of the groups in it.

    Args:
        title: the heading.
        model: the group.
        path: the TOML path of the group, with a trailing dot; empty at the top.
        variable: the prefix of its environment variables; empty below a list, which is one variable as a whole.
    """
    yield f"## {title}\n"
    if path:
        yield f"{_summary(model)}\n"
    yield "| environment | TOML | type | default | meaning |" if variable else "| TOML | type | default | meaning |"
    yield "|---|---|---|---|---|" if variable else "|---|---|---|---|"
    inner = []
    for name, field in model.model_fields.items():
        group, is_list = _nested(field.annotation)
        if group is not None:
            inner.append((name, group, is_list))
        if group is None or is_list:
            yield _row(
                name, field, path, variable, secret=_is_secret(name, model), meaning=_meanings(model).get(name, "")
            )
    yield ""
    for name, group, is_list in inner:
        below = f"{path}{name}"
        heading = f"`[[{below}]]`" if is_list else f"`[{below}]`"
        deeper = "" if is_list or not variable else f"{variable}{name.upper()}__"
        yield from _group(heading, group, f"{below}.", deeper)


def _summary(model: type[BaseModel]) -> str:
    """The first paragraph of a group's docstring, in Markdown."""
    first = (model.__doc__ or "").split("\n\n", 1)[0]
    return " ".join(first.split()).replace("``", "`")


def _is_secret(name: str, model: type[BaseModel]) -> bool:
    """Whether a setting's value, or the content of its file, must not be shown."""
    value = model.model_fields.get(name.removesuffix("_file"))
    return name in SECRET_FILES or (value is not None and SecretStr in {value.annotation, *get_args(value.annotation)})


@cache
def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return what stands below each field of a group.

    It is read here and not by each process that reads settings: there it was a fifth of the time to load the program
    (``use_attribute_docstrings`` parses the sources).
    """
    found: dict[str, str] = {}
    for group in reversed(model.__mro__):
        if not issubclass(group, BaseModel) or group.__module__.partition(".")[0] != "sidecar":
            continue
        [defined] = ast.parse(dedent(inspect.getsource(group))).body
        for field, below in pairwise(getattr(defined, "body", ())):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = text
                case _:
                    pass
    return found


def _row(name: str, field: FieldInfo, path: str, variable: str, *, secret: bool, meaning: str) -> str:
    if not meaning:
        raise SystemExit(f"{path}{name} has no docstring")
    meaning = " ".join(meaning.split()).replace("``", "`")
    mark = "🔑 " if secret else ""
    default = "**required**" if field.is_required() else _value(field.get_default(call_default_factory=True))
    cells = [f"`{name}`", _type(field.annotation, field.metadata), default, mark + meaning]
    if variable:
        cells.insert(0, f"`{variable}{name.upper()}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _nested(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the group that a field holds, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if get_origin(annotation) is tuple:
        item = get_args(annotation)[0]
        return (item if isinstance(item, type) and issubclass(item, BaseModel) else None), True
    return None, False


def _type(annotation: Any, constraints: list[Any]) -> str:
    """Word a type, with its bounds."""
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        return _type(annotation, [*more, *constraints])
    match get_origin(annotation):
        case origin if origin is Union or origin is UnionType:
            return _type(next(part for part in get_args(annotation) if part is not NoneType), constraints)
        case origin if origin is tuple:
            item = get_args(annotation)[0]
            return "list of tables" if _nested(item)[0] is not None else f"list of {_type(item, [])}"
        case origin if origin is Literal:
            return " or ".join(f"`{choice}`" for choice in get_args(annotation))
        case origin if origin is dict:
            return f"table of {_type(get_args(annotation)[1], [])}"
        case _ if isinstance(annotation, type) and issubclass(annotation, Enum):
            return " or ".join(f"`{choice.value}`" for choice in annotation)
        case _:
            return f"{TYPES[annotation]}{_bounds(constraints)}"


def _bounds(constraints: list[Any]) -> str:
    found = {
        key: getattr(constraint, key)
        for constraint in _flattened(constraints)
        for key in ("ge", "le")
        if getattr(constraint, key, None) is not None
    }
    match found:
        case {"ge": low, "le": high}:
            return f", {low}-{high}"
        case {"ge": low}:
            return f", at least {low}"
        case _:
            return ""


def _flattened(constraints: list[Any]) -> Iterator[Any]:
    """Yield constraints, those of nested ``Field(…)`` included."""
    for constraint in constraints:
        if isinstance(constraint, FieldInfo):
            yield from _flattened(constraint.metadata)
        else:
            yield constraint


def _value(default: Any) -> str:
    match default:
        case None | "" | () if default is not PydanticUndefined:
            return ""
        case dict() if not default:
            return ""
        case PurePath() | Enum():
            return f"`{json.dumps(str(default))}`"
        case _:
            return f"`{json.dumps(default, ensure_ascii=False)}`"


if __name__ == "__main__":
    sys.exit(main())
