"""Opening what the settings name: state, objects, tails, and the engine over them."""

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tus_server.app.applications import Checks, open_checks
from tus_server.app.storage import open_s3
from tus_server.clock import SystemClock
from tus_server.core.errors import DataDirUnusable
from tus_server.core.expiry import Expiry
from tus_server.core.states import UploadState
from tus_server.core.upload import MAX_ANNOUNCED_INTEGER
from tus_server.datadir import DataDir
from tus_server.disk.threads import FileThreads
from tus_server.engine.buffers import BlockPool
from tus_server.engine.engine import Engine
from tus_server.engine.leases import Leases
from tus_server.engine.sweep import OwnFiles, OwnPartials, OwnTails
from tus_server.engine.tails import TailPolicy, Tails
from tus_server.folders import make_lasting_folder
from tus_server.node import is_node, load_node
from tus_server.objects.local import LocalObjects
from tus_server.objects.local_direct import LocalDirect
from tus_server.ports import (
    Authorizer,
    DirectParts,
    Node,
    ObjectStore,
    PartFiles,
    StateStore,
    TailStore,
)
from tus_server.process_lock import ProcessLock
from tus_server.settings import Settings
from tus_server.signing_key import load_signing_key
from tus_server.tails import DiskTails
from tus_server.wire.sniffing import sniff_type

if TYPE_CHECKING:
    from tus_server.objects.s3 import Capabilities
    from tus_server.state.postgres import PostgresOptions


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is found out once for all workers of a node, which need not look again."""

    capabilities: "Capabilities | None"


@dataclass(frozen=True, slots=True)
class Opened:
    """What is open: the engine, and what else of this process the application works with.

    data_dir: None where a supervisor holds its lock. own_files: the kinds of files on this node's
    disk that are nobody else's to sweep. checks: what the application is asked about uploads.
    """

    engine: Engine
    data_dir: DataDir | None
    own_files: tuple[OwnFiles, ...]
    checks: Checks


async def open_engine(
    settings: Settings,
    authorizer: Authorizer,
    stack: AsyncExitStack,
    *,
    prepared: Prepared | None = None,
    shared: bool = False,
    early_events: frozenset[UploadState] = frozenset(),
) -> Opened:
    """Open everything on `stack`.

    shared: beside a server that holds the lock of the data directory; with Postgres only.
    early_events: of states.EARLY_EVENTS, those that somebody wants to hear of.
    Raises: DataDirInUse, DataDirUnusable, NodeNameTaken, SchemaMismatch, SettingsInvalid,
    StateUnavailable, StoreUnavailable.
    """
    data_dir = None
    if prepared is None and not shared:
        data_dir = stack.enter_context(DataDir(settings.data_dir))
    elif shared:
        settings = _visit(settings, stack)
    clock = SystemClock()
    threads = stack.enter_context(FileThreads(settings.file_threads))
    blocks = BlockPool(settings.buffer_bytes)
    node = load_node(settings.data_dir, settings.node_name) if settings.uses_s3 else None
    state = await _open_state(
        settings,
        node,
        clock,
        stack,
        prepare=prepared is None,
        serves=not shared,
        early_events=early_events,
    )
    checks = await open_checks(settings, clock, stack)
    tails: Tails | None = None
    own_files: tuple[OwnFiles, ...]
    objects: ObjectStore
    direct: DirectParts
    part_files: PartFiles | None = None
    if node is None:
        objects = local = _open_disk(settings, threads)
        own_files = (OwnPartials(local),)
        direct = part_files = LocalDirect(local.disk, load_signing_key(settings.data_dir))
    else:
        capabilities = prepared.capabilities if prepared else None
        s3, parked = await open_s3(settings, blocks, threads, stack, capabilities)
        objects, direct = s3, s3.direct
        disk = DiskTails(
            settings.data_dir.absolute(),
            threads,
            node=node,
            blocks=blocks,
            durable=settings.durability == "full",
        )
        tails = _make_tails(settings, state, disk, parked, node)
        own_files = (OwnTails(disk, tails.suspects),)
    largest = min(objects.limits.max_object_size, MAX_ANNOUNCED_INTEGER)
    engine = Engine(
        state=state,
        objects=objects,
        leases=Leases(
            state,
            clock,
            wait_s=settings.lease_wait_s,
            retry_s=settings.state_retry_s,
            numbers=objects.limits.reserved_numbers,
        ),
        authorizer=authorizer,
        clock=clock,
        blocks=blocks,
        max_size=min(settings.max_size or largest, largest),
        max_append_size=settings.max_append_size,
        # Of their own: a hash must not queue behind an fsync, nor one behind a hash. Of the cores
        # half: on all of them hashing keeps the loop from its work.
        threads=stack.enter_context(FileThreads(max(1, (os.cpu_count() or 1) // 2))),
        expiry=make_expiry(settings),
        keep_partials=settings.keep_partials,
        tails=tails,
        direct=direct,
        part_files=part_files,
        direct_part_size=settings.direct_part_size,
        sign_expires_s=settings.sign_expires_s,
        sniff=sniff_type,
        sniffs_all=settings.sniff == "all",
        verifiers=checks.verifiers,
        # Only where there are several nodes does a balancer have to know one from another.
        node_label=node.label if node is not None and settings.uses_postgres else None,
    )
    return Opened(engine, data_dir, own_files, checks)


async def open_state(settings: Settings, stack: AsyncExitStack) -> StateStore:
    """Open the state alone, for a command: with SQLite only where no server runs.

    Raises: as open_engine.
    """
    if settings.uses_postgres:
        settings = _visit(settings, stack)
    else:
        stack.enter_context(DataDir(settings.data_dir))
    node = load_node(settings.data_dir, settings.node_name) if settings.uses_s3 else None
    return await _open_state(
        settings,
        node,
        SystemClock(),
        stack,
        prepare=True,
        serves=False,
        early_events=frozenset(),
    )


def make_expiry(settings: Settings) -> Expiry:
    """Give when uploads expire."""
    return Expiry(settings.expires_after_s or None, settings.expires_at_most_s)


async def prepare_stores(settings: Settings) -> Prepared:
    """Bring the schema up to date if that is wanted, and find out what the store can do.

    For a supervisor, before it starts workers. Raises: as open_engine.
    """
    load_node(settings.data_dir, settings.node_name)
    if settings.uses_postgres:
        await _prepare_postgres(settings)
    async with AsyncExitStack() as stack:
        threads = stack.enter_context(FileThreads(1))
        objects, _ = await open_s3(settings, BlockPool(settings.buffer_bytes), threads, stack, None)
        return Prepared(objects.capabilities)


def postgres_options(settings: Settings) -> "PostgresOptions":
    """Give what the store of Postgres takes of the settings."""
    from tus_server.state.postgres import PostgresOptions

    assert settings.state_url is not None
    return PostgresOptions(
        url=settings.state_url,
        listen_url=settings.state_listen_url,
        pool_size=settings.state_pool_size,
        connect_timeout_s=settings.state_connect_timeout_s,
        statement_timeout_s=settings.state_timeout_s,
        retry_s=settings.state_retry_s,
        prepared_statements=settings.state_prepared,
    )


def _visit(settings: Settings, stack: AsyncExitStack) -> Settings:
    """Give the settings for a command beside servers, which makes no node of this machine."""
    if is_node(settings.data_dir):
        return settings
    visiting = stack.enter_context(TemporaryDirectory(prefix="tus-server-"))
    return settings.model_copy(update={"data_dir": Path(visiting)})


async def _open_state(
    settings: Settings,
    node: Node | None,
    clock: SystemClock,
    stack: AsyncExitStack,
    *,
    prepare: bool,
    serves: bool,
    early_events: frozenset[UploadState],
) -> StateStore:
    if not settings.uses_postgres:
        from tus_server.state.sqlite import SqliteState

        _make_folder(settings.state_path.parent)
        durable = settings.durability == "full"
        return await stack.enter_async_context(
            SqliteState(settings.state_path, clock, durable=durable, early_events=early_events)
        )
    from tus_server.state.postgres import PostgresState

    if prepare:
        await _prepare_postgres(settings)
    assert node is not None
    process = stack.enter_context(ProcessLock(settings.data_dir))
    return await stack.enter_async_context(
        PostgresState(
            postgres_options(settings),
            node=node,
            process=process.token,
            has_ended=process.has_ended,
            registers=serves,
            early_events=early_events,
        )
    )


async def _prepare_postgres(settings: Settings) -> None:
    from tus_server.state.postgres import check_schema, migrate

    options = postgres_options(settings)
    if settings.migrate:
        await migrate(options)
    else:
        await check_schema(options)


def _open_disk(settings: Settings, threads: FileThreads) -> LocalObjects:
    _make_folder(settings.store_path)
    return LocalObjects(
        settings.store_path,
        threads,
        part_size_bytes=settings.part_size,
        durable=settings.durability == "full",
    )


def _make_tails(
    settings: Settings, state: StateStore, disk: TailStore, parked: TailStore, node: Node
) -> Tails:
    return Tails(
        state=state,
        disk=disk,
        parked=parked,
        node=node,
        policy=TailPolicy(settings.tail_policy),
        node_dead_after_s=settings.node_dead_after_s,
    )


def _make_folder(folder: Path) -> None:
    try:
        make_lasting_folder(folder)
    except OSError as exc:
        raise DataDirUnusable(
            f"{exc.filename} cannot be made ({exc.strerror}): see TUS_STATE_URL, TUS_STORE_URL."
        ) from exc
