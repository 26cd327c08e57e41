"""Logs that a machine can read and that tell no secrets."""

import io
import json
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from sidecar.errors import ConfigurationError, TokenRejected
from sidecar.telemetry.logs import JsonFormatter, TextFormatter, configure
from sidecar.telemetry.redaction import GONE, LONGEST, SHOWN, redact
from sidecar.telemetry.tracing import OtelTracer

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl-_"
LOG = logging.getLogger("sidecar.test")


@pytest.fixture(autouse=True)
def root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quiet = {name: logging.getLogger(name).level for name in ("urllib3", "asyncio", "aiohttp.access")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def out() -> io.StringIO:
    stream = io.StringIO()
    configure("debug", json=True, stream=stream)
    return stream


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.JSONDecoder().decode(line) for line in out.getvalue().splitlines()]


def log_raised(error: Exception, cause: Exception | None, message: str = "bug") -> None:
    try:
        raise error from cause
    except type(error):
        LOG.exception(message)


def test_a_record_is_one_json_object_with_its_extra_fields(out):
    LOG.info("server %s is back", "sales-ro", extra={"server": "sales-ro", "attempt": 3, "codes": ("a", None, 1.5)})
    (line,) = lines(out)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "sidecar.test",
        "message": "server sales-ro is back",
        "server": "sales-ro",
        "attempt": 3,
        "codes": ["a", None, 1.5],
    }


def test_within_a_span_its_ids_are_in_the_record(out):
    tracer = OtelTracer(None)
    with tracer.server("x", traceparent=None, link=None), tracer.step("y") as step:
        LOG.info("here")
        ids = (step.trace_id, step.span_id)
    LOG.info("outside")
    inside, outside = lines(out)
    assert (inside["trace_id"], inside["span_id"]) == ids
    assert "trace_id" not in outside


def test_an_error_of_ours_is_its_label_and_detail_only(out):
    log_raised(TokenRejected(f"kid unknown in {JWT}"), ValueError("inner text"))
    (line,) = lines(out)
    assert line["error"] == {"type": "TokenRejected", "label": "token_rejected", "detail": f"kid unknown in {GONE}"}


def test_a_foreign_error_has_its_frames_and_its_cause_redacted(out):
    log_raised(KeyError("mongodb://root:hunter2@db/x"), OSError(f"Bearer {JWT}"))
    (line,) = lines(out)
    assert line["error"]["type"] == "KeyError"
    assert "test_logs_and_redaction.py" in line["error"]["stack"]
    assert "hunter2" not in out.getvalue()
    assert "eyJ" not in out.getvalue()


def test_an_extra_field_cannot_replace_what_every_record_says(out):
    LOG.info("x", extra={"time": "never", "level": "none", "error": "mine"})
    (line,) = lines(out)
    assert line["level"] == "info"
    assert (line["time_"], line["level_"], line["error_"]) == ("never", "none", "mine")


def test_whatever_is_logged_stays_one_line_of_json(out):
    nested: dict[str, Any] = {}
    nested["self"] = nested
    LOG.info("a\nb\r\x1b[31m\u2028", extra={"odd": {1: {2: {3: {4: {5: 6}}}}}, "nan": float("nan"), "bytes": b"x"})
    LOG.info("loop", extra={"loop": nested})
    assert [line["message"] for line in lines(out)] == ["a\nb\r\x1b[31m\u2028", "loop"]
    assert out.getvalue().count("\n") == 2


class Rude:
    @override
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("place", ["the message", "an extra field", "an error"])
def test_half_a_surrogate_pair_in_the_name_of_a_file_is_no_reason_to_drop_a_line(place):
    name = os.fsdecode(b"\xff.rego")
    error = ConfigurationError(name)
    # Formatted here and not logged: pytest captures what is logged, and its workers' reports must be text.
    fields: dict[str, dict[str, Any]] = {
        "the message": {"msg": "%s is refused", "args": (name,)},
        "an extra field": {"file_": name},
        "an error": {"exc_info": (type(error), error, None)},
    }
    line = JsonFormatter().format(
        logging.makeLogRecord({"msg": "x", "levelname": "INFO", "name": "x", **fields[place]})
    )
    assert "?.rego" in str(msgspec.json.decode(line.encode("utf-8", "strict"))), "a reader that is strict"


@pytest.mark.parametrize(("msg", "args"), [("%d", ("not a number",)), ("%s %s", ("one",)), ("%s", (Rude(),))])
@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_record_whose_message_cannot_be_made_is_logged_all_the_same(formatter, msg, args):
    record = logging.makeLogRecord({"msg": msg, "args": args, "levelname": "INFO", "name": "x"})
    assert msg in formatter.format(record)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_an_extra_field_that_cannot_be_text_is_logged_all_the_same(formatter):
    record = logging.makeLogRecord(
        {"msg": "x", "levelname": "INFO", "name": "x", "odd": Rude(), "deep": [{"a": Rude()}]}
    )
    assert "Rude" in formatter.format(record)


@given(
    st.text(),
    st.dictionaries(
        st.text(min_size=1).filter(
            lambda key: key not in vars(logging.makeLogRecord({})) and key not in {"message", "asctime"}
        ),
        st.text(),
    ),
)
def test_any_text_is_one_line_of_json(message, extra):
    stream = io.StringIO()
    configure("info", json=True, stream=stream)
    LOG.info("%s", message, extra=extra)
    assert stream.getvalue().count("\n") == 1
    json.JSONDecoder().decode(stream.getvalue())


def test_a_person_gets_text_in_which_a_caller_writes_no_line_of_its_own():
    stream = io.StringIO()
    configure("INFO", json=False, stream=stream)
    LOG.warning("tool %s", "x\n2026-01-01 forged \x1b[2J\x9b\u202e\u2066\r", extra={"name_": f"Bearer {JWT}"})
    log_raised(KeyError("b\nc"), None, "bug [bold]markup[/bold]")
    shown = stream.getvalue()
    assert "\\n2026" in shown.replace("\n", "").replace(" ", "")
    assert [each for each in ("\x1b", "\x9b", "\u202e", "\u2066", "\r") if each in shown] == []
    assert "eyJ" not in shown
    assert "[bold]" in shown


def test_a_stream_that_is_no_terminal_gets_json():
    stream = io.StringIO()
    configure("INFO", stream=stream)
    LOG.info("x")
    assert lines(stream)[0]["message"] == "x"


def test_configuring_again_replaces_the_handler(out):
    configure("warning", json=True, stream=out)
    LOG.info("too quiet")
    LOG.warning("once")
    assert [line["message"] for line in lines(out)] == ["once"]


@pytest.mark.parametrize("level", ["", "loud", "10", "INFO "])
def test_a_level_that_is_none_refuses_to_start(level):
    with pytest.raises(ConfigurationError, match="level"):
        configure(level)


SECRETS = [
    (f"token {JWT} here", JWT[5:]),
    (f"a.{JWT}", "c2lnbmF0dXJl"),
    ("eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVy.dGFn", "Y2lwaGVy"),
    ("Authorization: Bearer opaque-token-1234567", "opaque-token"),
    ("authorization: bearer short", "short"),
    ('{"Authorization": "DPoP abc"}', "abc"),
    ("sent bearer 0123456789abcdef==", "0123456789"),
    ("Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpw"),
    ("mongodb://root:hunter2@db.example:27017/sales?ssl=true", "hunter2"),
    ("mongodb+srv://root:hun%40ter2@cluster.example/", "ter2"),
    ("mongodb://root:hun@ter2@db/x", "ter2"),
    ("mongodb://root:hun/ter2@db/x", "ter2"),
    ("MONGODB://Root:Hunter2@db", "Hunter2"),
    ("https://user:pass1234@idp.example/", "pass1234"),
    ("https://:pass1234@idp.example/", "pass1234"),
    ("x?client_secret=abc123&y=1", "abc123"),
    ('{"client_secret": "abc123"}', "abc123"),
    ("refresh_token=abc123", "abc123"),
    ("password: abc123", "abc123"),
    ("MDB_PASSWORD=abc123", "abc123"),
    ("tlsCertificateKeyFilePassword=abc123", "abc123"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_a_secret_is_taken_out(text, secret):
    assert secret not in redact(text)
    assert GONE in redact(text)


PLAIN = [
    "the bearer token is not valid",
    "mongodb://db.example:27017/sales",
    "https://idp.example/keys?x=a@b.example",
    "read sales.orders at /arguments/pipeline/1/$lookup",
    "a:b@c",
    "eyJ is how a header begins",
    "revision 3f2a of policies",
    "token_rejected",
]


@pytest.mark.parametrize("text", PLAIN)
def test_the_near_misses_stay_readable(text):
    assert redact(text) == text


@given(st.text(max_size=30), st.sampled_from([JWT, "mongodb://u:hunter2hunter2@h"]), st.text(max_size=30))
def test_a_secret_between_any_words_is_taken_out(before, secret, after):
    shown = redact(f"{before} {secret} {after}")
    assert "hunter2hunter2" not in shown
    assert "c2lnbmF0dXJl" not in shown


def test_a_secret_at_the_edge_of_what_is_shown_is_not_cut_in_half():
    for shift in range(len(JWT) + 2):
        assert "eyJ" not in redact("x" * (SHOWN - shift) + " " + JWT)
    assert len(redact("x" * 10 * LONGEST)) == SHOWN + 1


@pytest.mark.parametrize(
    "unit",
    [
        "eyJ",
        "eyJaaaaaa.",
        "mongodb://",
        "mongodb://a:",
        "a://b:",
        "bearer ",
        "authorization:",
        "password=",
        "a",
        "-",
        "@",
    ],
)
def test_no_text_makes_it_slow(unit):
    text = unit * (LONGEST // len(unit))
    begun = time.process_time()
    redact(text)
    assert time.process_time() - begun < 5, "quadratic would be minutes"
