"""Which bundles an external OPA does not activate, according to its ``GET /v1/status``.

OPA keeps what it ran when a bundle does not load: signed with another key or not at all, edited, not compiling, with
the roots of another one, or gone from its file server. Provenance, the lists of what runs and ``/health?bundles=true``
are then as before (1.22.2, measured); only the status has it, by bundle, until the next poll that succeeds. OPA answers
500 without ``status`` in its configuration. With ``trigger: manual`` it sends no reports by itself and still answers.

This changes what an operator is told, and no decision.
"""

import logging
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.opa.client import OpaClient
from sidecar.opa.external_inventory import is_ours
from sidecar.printing import printable

STATUS: Final = "v1/status"

_LOG = logging.getLogger(__name__)

_MAX_STATUS_BYTES: Final = 4 * 2**20
"""60 kB of OPA's own metrics and half a kilobyte a bundle (measured); the rest are lines of modules that do not parse,
which OPA repeats at any length."""
_MOST: Final = 5
"""Bundles of a line, and errors of a bundle."""
_LONGEST: Final = 400
"""Characters of one of OPA's texts. The author of an archive chooses names and their length."""

_QUERY: Final = re.compile(r"(https?://[^\s\"?]*)\?[^\s\"]*")
"""A download that fails names its URL; the query of one may be what lets its holder in (signed URLs)."""

_AWAY: Final = frozenset({PdpFault.UNREACHABLE, PdpFault.TIMEOUT, PdpFault.INCOMPLETE})


class _Location(msgspec.Struct):
    file: str = ""
    row: int = 0


class _BundleError(msgspec.Struct):
    """An ``ast.Error`` without its ``details``, which quote the module."""

    code: str = ""
    message: str = ""
    location: _Location | None = None


class _ReportedBundle(msgspec.Struct):
    code: str = ""
    """Empty where the last download and activation succeeded."""
    message: str = ""
    errors: list[_BundleError] = []


class _Report(msgspec.Struct):
    bundles: dict[str, _ReportedBundle] = {}


class _StatusAnswer(msgspec.Struct):
    result: _Report


_ANSWER: Final = msgspec.json.Decoder(_StatusAnswer)


def read_failures(body: bytes) -> dict[str, str]:
    """Read ``GET /v1/status`` (``status.UpdateRequestV1``, OPA 1.22.2).

    Returns:
        Why OPA does not run the newest content of a policy bundle, by bundle: OPA's words, with file and line
        where it says them, as one line that prints.

    Raises:
        DecisionUnavailable: it is something else.
    """
    try:
        report = _ANSWER.decode(body).result
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Without the cause: it may quote what it read.
        what = f"the status has another form than OPA's ({type(error).__name__})"
        raise DecisionUnavailable(what, fault=PdpFault.MALFORMED) from None
    return {_shown(name): _why(bundle) for name, bundle in report.bundles.items() if bundle.code and is_ours(name)}


def _why(bundle: _ReportedBundle) -> str:
    # The first few only: an author can make thousands.
    errors = [_located(error) for error in bundle.errors[:_MOST]]
    return _first(errors, len(bundle.errors)) or _shown(bundle.message) or _shown(bundle.code)


def _located(error: _BundleError) -> str:
    where = error.location
    said = _shown(f"{error.code}: {error.message[:_LONGEST]}")
    return f"{_shown(where.file)}:{where.row}: {said}" if where is not None and where.file else said


def _shown(text: str) -> str:
    # Cut first: making a text of megabytes printable would keep the loop for seconds.
    return printable(_QUERY.sub(r"\1?…", text[:_LONGEST]).encode("utf-8", "replace"), longest=_LONGEST)


def _first(texts: list[str], total: int) -> str:
    """Join the first few, and say how many there are beside them."""
    more = [f"and {total - _MOST} more"] if total > _MOST else []
    return "; ".join([*texts[:_MOST], *more])


class Activation:
    """Keeps what OPA said last of the bundles that it does not activate.

    Args:
        client: asks that OPA; its owner opens and closes it.
        timeout_s: seconds for one look.
    """

    def __init__(self, client: OpaClient, *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._failures: dict[str, str] = {}
        self._known = True

    @property
    def failure(self) -> str:
        """What is not activated and why; empty where everything is, or where OPA does not say."""
        return _said(self._failures)

    async def look(self) -> None:
        """Ask once, and log what has changed. Where OPA is away, what it said last stands."""
        try:
            body = await self._client.look(STATUS, timeout_s=self._timeout_s, longest=_MAX_STATUS_BYTES)
            self._note(read_failures(body))
        except DecisionUnavailable as error:
            if error.fault is PdpFault.TOO_LARGE:
                # A team that causes this must not hide what OPA reports of the other teams.
                self._note({f"GET /{STATUS}": error.detail})
            elif error.fault not in _AWAY:
                self._forget(error.detail)

    def _note(self, failures: dict[str, str]) -> None:
        new = {name: why for name, why in failures.items() if self._failures.get(name) != why}
        mended = sorted(self._failures.keys() - failures.keys())
        self._known, self._failures = True, failures
        if new:
            _LOG.error("the external opa does not activate a bundle, what it ran keeps serving: %s", _said(new))
        if mended:
            _LOG.info("the external opa activates these bundles again: %s", _first(mended, len(mended)))

    def _forget(self, detail: str) -> None:
        """Note that OPA does not say, as one without ``status`` in its configuration."""
        if self._known:
            what = "which bundles the external opa does not activate is not known (docs/external-opa.md): %s"
            _LOG.info(what, detail)
        self._known, self._failures = False, {}


def _said(failures: Mapping[str, str]) -> str:
    return _first([f"{name}: {why}" for name, why in sorted(failures.items())], len(failures))
