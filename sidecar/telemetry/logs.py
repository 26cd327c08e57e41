"""Logs on standard error: one JSON object a line for machines, readable colour for people on a terminal.

Everything that is logged passes ``redact``, including the text of tracebacks. An exception of ``sidecar.errors`` is
logged as its label and its detail, without its traceback and its other arguments.
"""

import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from json import JSONEncoder
from typing import Final, TextIO

from opentelemetry import trace
from rich.console import Console
from rich.logging import RichHandler
from typing_extensions import override

from sidecar.errors import ConfigurationError, SidecarError
from sidecar.model import JsonObject
from sidecar.printing import escaped, whole
from sidecar.telemetry.redaction import redact

_ENCODER = JSONEncoder(ensure_ascii=True, separators=(",", ":"))

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_OURS: Final = frozenset({"time", "level", "logger", "message", "trace_id", "span_id", "error"})

_QUIET: Final = ("urllib3", "asyncio", "aiohttp.access")
"""Libraries that log each request or connection below WARNING, with URLs."""

_DEPTH = 4


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, extra fields, the current span's ids."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Render one record; never raises for what a caller or a library put into it."""
        fields: dict[str, object] = {
            key if key not in _OURS else f"{key}_": _plain(value, _DEPTH)
            for key, value in vars(record).items()
            if key not in _STANDARD
        }
        fields |= {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _safe(_message(record)),
            **_span(),
        }
        error = _error(record)
        if error is not None:
            fields["error"] = _told(error)
        return _ENCODER.encode(fields)


class TextFormatter(logging.Formatter):
    """The message, its extra fields, and what went wrong, for a person."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        extra = {key: _plain(value, _DEPTH) for key, value in vars(record).items() if key not in _STANDARD}
        pairs = "".join(f" {key}={value}" for key, value in extra.items())
        # Line breaks in a caller's text are escaped; those of the traceback below are added after that.
        text = escaped(_safe(_message(record) + pairs))
        error = _error(record)
        if error is None:
            return text
        told = _told(error)
        lines = "\n".join(escaped(line) for line in str(told.pop("stack", "")).splitlines())
        summary = escaped(" ".join(f"{key}={value}" for key, value in told.items()))
        return f"{text} {summary}" + (f"\n{lines}" if lines else "")


def configure(level: str, *, json: bool | None = None, stream: TextIO | None = None) -> None:
    """Send all logging to one handler on standard error, replacing what was there.

    Args:
        level: a name of ``logging`` (``INFO``), any case.
        json: whether machines read it; None asks whether the stream is a terminal.
        stream: where to write; standard error if None.

    Raises:
        ConfigurationError: no such level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigurationError(f"log_level is {level!r}: use DEBUG, INFO, WARNING or ERROR")
    out = sys.stderr if stream is None else stream
    machine = not out.isatty() if json is None else json
    handler: logging.Handler
    if machine:
        handler = logging.StreamHandler(out)
        handler.setFormatter(JsonFormatter())
    else:
        handler = RichHandler(console=Console(file=out), markup=False, show_path=False, omit_repeated_times=False)
        handler.setFormatter(TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


class LoggedRefusals:
    """One line for a refused call (``sidecar.ports.RefusalLog``); the current span's ids come with it."""

    def __init__(self) -> None:
        self._log = logging.getLogger("sidecar.calls")

    def refused(self, error: str, facts: JsonObject, *, failure: bool) -> None:
        """Write it: as a warning where an operator can mend something."""
        self._log.log(logging.WARNING if failure else logging.INFO, "call refused: %s", error, extra=facts)

    def exceeded(self, facts: JsonObject) -> None:
        """Write that a call changed more than it may."""
        self._log.warning("more documents were changed than an obligation allows", extra=facts)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 (any __str__ may be called here; a record must be logged all the same)
        return _text(record.msg)


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _told(error: BaseException) -> dict[str, str]:
    """Say what went wrong. Frames without source lines or values; the messages of a chain without their tracebacks."""
    if isinstance(error, SidecarError):
        return {"type": type(error).__name__, "label": error.label, "detail": _safe(error.detail)}
    frames = traceback.extract_tb(error.__traceback__)
    stack = "\n".join(f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
    told = {"type": type(error).__qualname__, "detail": _safe(_text(error)), "stack": _safe(stack)}
    if error.__cause__ is not None:
        told["cause"] = _safe(f"{type(error.__cause__).__qualname__}: {_text(error.__cause__)}")
    return told


def _span() -> dict[str, str]:
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _plain(value: object, depth: int) -> object:
    """Turn an extra field into JSON without secrets; what is too deep or not JSON becomes text."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if value - value == 0 else str(value)  # NaN and infinities are not JSON
        case Mapping() if depth:
            return {_safe(_text(key)): _plain(item, depth - 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset() if depth:
            return [_plain(item, depth - 1) for item in value]
        case _:
            return _safe(_text(value))


def _safe(text: str) -> str:
    """Return text without secrets that every reader of JSON takes."""
    return whole(redact(text))


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 (any __str__ may be called here; a record must be logged all the same)
        return f"<{type(value).__qualname__}>"
