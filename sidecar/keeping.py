"""From the settings to what outlives a process, or is shared by several: evidence, suspensions, marks of use."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sidecar import settings
from sidecar.enforcement import ByOthers, EnforcementPoint, SharedSessions, Suspensions, UsedInMemory
from sidecar.errors import ConfigurationError, SuspensionsUnavailable
from sidecar.identity import ApprovalStore
from sidecar.lifecycle import cancelled
from sidecar.mcp import EndedSessions
from sidecar.oauth import ProofsInMemory
from sidecar.ports import Clock, ProofMemory, SuspensionStore, UsageCounters, UsedStates
from sidecar.settings import Settings
from sidecar.store import (
    AuditSpool,
    AuditSync,
    FileApprovals,
    FileAuditSink,
    FileSuspensions,
    MongoApprovals,
    MongoAuditSink,
    MongoCounters,
    MongoEndedSessions,
    MongoHeads,
    MongoMarks,
    MongoStore,
    MongoSuspensions,
    Rotation,
    SessionKeyFile,
    SharedProofs,
    SharedStates,
    SigningKeyFile,
    guard,
)
from sidecar.store_settings import FILE, collection
from sidecar.system import FollowedFiles, follow_connection, follow_files


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSuspensions:
    """Who is suspended, and where that is kept."""

    table: Suspensions
    store: SuspensionStore
    shared: bool


async def audit_store(
    config: Settings, clock: Clock, store: MongoStore | None, stack: AsyncExitStack
) -> FileAuditSink | MongoAuditSink:
    """Open the audit store, and continue its chain; a MongoDB that is away is waited for by calls, not by the start.

    Raises:
        ConfigurationError: it cannot be had, its last record does not hold, the key cannot be used, or the database's
            user may change evidence.
    """
    given, name = config.audit, collection(config.audit.store)
    signer = None
    if given.signing_key_file is not None:
        key = SigningKeyFile(given.signing_key_file)
        signer = key.signer
        followed(key, stack)
    if store is None or name is None:
        file = FileAuditSink(
            given.path or Path(),
            sync=AuditSync(given.sync),
            rotation=Rotation(max_bytes=given.rotate_mb * 1_000_000, max_age_s=given.rotate_hours * 3600),
            checkpoint_s=given.checkpoint_s,
            signer=signer,
        )
        stack.push_async_callback(file.close)
        return file
    instance = given.chain_name
    where = given.spool_path
    sink = MongoAuditSink(
        store,
        name,
        instance=instance,
        clock=clock,
        heads=MongoHeads(store, name, instance, signer, given.keep),
        checkpoint_s=given.checkpoint_s,
        spool=None if where is None else AuditSpool(where, most=given.spool_mb * 1_000_000),
        keep=given.keep,
    )
    stack.push_async_callback(sink.close)
    await sink.start()
    return sink


def shared_store(config: Settings, stack: AsyncExitStack) -> MongoStore | None:
    """Prepare the connection to what several sidecars share; nothing is dialled yet.

    Raises:
        ConfigurationError: the connection string cannot be used.
    """
    given = config.mongodb
    if not given.given:
        return None
    text = settings.secret(given.uri, given.uri_file)
    store = MongoStore(text, given.database, timeout_s=given.timeout_ms / 1000)
    stack.push_async_callback(store.close)
    if given.uri_file is not None:
        read = partial(settings.secret, None, given.uri_file)
        going_over = follow_connection("mongodb.uri_file", text, read, store.renew)
        stack.push_async_callback(cancelled, asyncio.create_task(going_over, name="mongodb.uri_file"))
    return store


def proof_memory(config: Settings, clock: Clock, store: MongoStore | None) -> ProofMemory:
    """Return what knows which proofs were presented before."""
    here, name = ProofsInMemory(clock), collection(config.single_use)
    return here if store is None or name is None else SharedProofs(here, MongoMarks(store, name))


def used_states(config: Settings, clock: Clock, store: MongoStore | None) -> UsedStates | None:
    """Return what knows of all sidecars which confirmations without a session were used; None: each of its own."""
    name = collection(config.single_use)
    return None if store is None or name is None else SharedStates(UsedInMemory(clock), MongoMarks(store, name))


def usage_counters(config: Settings, store: MongoStore | None) -> UsageCounters | None:
    """Return what counts use for all sidecars; None where each counts for itself."""
    return MongoCounters(store, config.mongodb.usage) if store is not None and config.mongodb.usage else None


async def kept_suspensions(
    config: Settings, clock: Clock, store: MongoStore | None, stack: AsyncExitStack
) -> KeptSuspensions | None:
    """Read who was suspended before; where that cannot be read, everything comes up and everybody is refused.

    Raises:
        ConfigurationError: another sidecar has the file, or its folder cannot be written.
    """
    if not config.suspensions:
        return None
    name = collection(config.suspensions)
    kept: FileSuspensions | MongoSuspensions
    if store is not None and name is not None:
        kept = MongoSuspensions(store, name, clock, stale_after_s=config.mongodb.stale_after_s)
    else:
        kept = FileSuspensions(Path(config.suspensions.removeprefix(FILE)))
        stack.callback(kept.close)
    try:
        table = Suspensions(clock, await kept.load())
    except SuspensionsUnavailable:
        table = Suspensions(clock, known=False)
    return KeptSuspensions(table=table, store=kept, shared=isinstance(kept, MongoSuspensions))


async def kept_approvals(
    config: Settings, clock: Clock, store: MongoStore | None, stack: AsyncExitStack, *, launched: bool
) -> ApprovalStore | None:
    """Read which calls wait for a second person; a damaged file refuses those, and nothing else.

    Raises:
        ConfigurationError: another sidecar has the file, its folder cannot be written, or nobody could approve.
    """
    given = config.approvals
    if not given.store:
        return None
    name = collection(given.store)
    if store is not None and name is not None:
        return MongoApprovals(store, name, clock, most=given.most, most_of_one=given.most_per_user)
    if launched:
        raise ConfigurationError(
            "a sidecar that a client launches has no endpoint where anybody could approve: keep approvals in mongodb:, "
            "with a sidecar that serves beside it"
        )
    path = Path(given.store.removeprefix(FILE))
    kept = FileApprovals(path, clock, most=given.most, most_of_one=given.most_per_user)
    stack.callback(kept.close)
    await kept.load()
    return kept


def concerns(approvals: ApprovalStore | None) -> list[str]:
    """Name for probes what of this is refused until the next start: calls that wait, where their file is damaged."""
    return ["approvals"] if isinstance(approvals, FileApprovals) and not approvals.usable else []


def shared_sessions(
    config: Settings, clock: Clock, store: MongoStore | None, stack: AsyncExitStack
) -> SharedSessions | None:
    """Read the keys of handles, follow their file, and learn of sessions that end elsewhere.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """
    if config.session_keys_file is None:
        return None
    file, ended = SessionKeyFile(config.session_keys_file, config.resource.text), EndedSessions()
    lifetime_s, name = config.sessions.lifetime_s, collection(config.sessions.ended)
    if store is not None and name is not None:
        told = MongoEndedSessions(store, name, ended, clock, lifetime_s=lifetime_s)
        stack.push_async_callback(told.look)  # what ended last is told too
        stack.push_async_callback(cancelled, asyncio.create_task(told.follow(), name="ended sessions"))
    followed(file, stack)
    return SharedSessions(lambda: file.keys, ended, clock, lifetime_s=lifetime_s)


def followed(files: FollowedFiles[Any] | None, stack: AsyncExitStack) -> None:
    """Take up files of secrets when they change, for as long as the sidecar runs; None where there are none."""
    if files is None:
        return
    stack.push_async_callback(cancelled, asyncio.create_task(follow_files(files), name="a file of secrets"))


def follow(kept: KeptSuspensions, pep: EnforcementPoint, stack: AsyncExitStack, *, forget: Callable[[], None]) -> None:
    """Keep what is in force what is kept, for as long as the sidecar runs."""
    if isinstance(kept.store, MongoSuspensions):
        others = ByOthers(pep, kept.table, forget=forget)
        watching = kept.store.follow(others.changed, kept.table.set_known)
    elif kept.table.known:
        watching = guard(kept.table, kept.store)
    else:
        return  # a file that was damaged at the start is read by the next start only
    stack.push_async_callback(cancelled, asyncio.create_task(watching, name="suspensions"))
