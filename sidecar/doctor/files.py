"""Files that the deployment stands on: who else can read or change them, and certificates that end."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from sidecar.doctor.findings import Check, PostureFinding

WARNING_DAYS: Final = 30
_MOST_FILES: Final = 20_000
"""Of a policy folder."""


def readable_by_all(path: Path) -> bool:
    """Whether every user of the machine can read a file: its own mode, and a way to it."""
    try:
        if not path.stat().st_mode & stat.S_IROTH:
            return False
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
    except OSError:
        return False


def changeable(path: Path) -> Path | None:
    """Return what lets another user change a file or folder: itself, or a folder above it; None where nothing does.

    Root may change everything, and so may this user. A group counts unless it is this user's own.
    """
    try:
        resolved = path.resolve(strict=True)
        for one in (resolved, *resolved.parents):
            if _is_open(one.stat(), folder_above=one != resolved):
                return one
    except OSError:
        return None
    return None


def _is_open(status: os.stat_result, *, folder_above: bool) -> bool:
    if status.st_uid not in {0, os.geteuid()}:
        return True
    if folder_above and status.st_mode & stat.S_ISVTX:
        return False  # as in /tmp: only the owner of an entry can replace it
    others = bool(status.st_mode & stat.S_IWOTH)
    return others or (bool(status.st_mode & stat.S_IWGRP) and status.st_gid not in {0, os.getegid()})


def examine_secret(where: str, path: Path) -> Iterator[PostureFinding]:
    """Yield that everybody can read a secret."""
    if readable_by_all(path):
        what = f"every user of this machine can read {path}"
        yield PostureFinding(check=Check.SECRET_READABLE, where=where, what=what, fix=f"chmod o-rwx {path}")


def examine_evidence(where: str, path: Path) -> Iterator[PostureFinding]:
    """Yield that everybody can read a file of audit records."""
    if readable_by_all(path):
        what = f"every user of this machine can read {path}"
        yield PostureFinding(check=Check.EVIDENCE_READABLE, where=where, what=what, fix=f"chmod 600 {path}")


def examine_writable(where: str, path: Path) -> Iterator[PostureFinding]:
    """Yield that another user, such as the agent's, could change a file or anything in a folder."""
    for number, one in enumerate((path, *(path.rglob("*") if path.is_dir() else ()))):
        if number >= _MOST_FILES:
            return
        if (opened := changeable(one)) is not None:
            fix = f"chown -R {_user()} {opened} && chmod go-w {opened}"
            what = f"another user can change {one}" + ("" if opened == one.resolve() else f", by {opened}")
            yield PostureFinding(check=Check.WRITABLE_BY_OTHERS, where=where, what=what, fix=fix)
            return


def _user() -> str:
    return str(os.geteuid())


def examine_certificate(where: str, path: Path, now: datetime) -> Iterator[PostureFinding]:
    """Yield that a certificate of a file has ended or soon will; what is no certificate the start refuses."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return
    ends = min((one.not_valid_after_utc for one in found), default=datetime.max.replace(tzinfo=UTC))
    days = (ends - now).days
    if days < WARNING_DAYS:
        said = f"ended on {ends:%Y-%m-%d}" if ends < now else f"ends on {ends:%Y-%m-%d}, in {days} days"
        yield PostureFinding(
            check=Check.CERTIFICATE_EXPIRES,
            where=where,
            what=f"a certificate in {path} {said}",
            fix="replace the file; it is read again without a restart",
        )
