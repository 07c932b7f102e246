"""Starting on Postgres: schema and migrations, what stops a start, names of nodes."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import asyncpg
import pytest

from tests.support.cluster import Cluster, eventually
from tests.support.fakes import FakeClock, make_upload
from tests.support.postgres import PostgresServer
from tests.support.state import claim, create, walk
from tus_server.core.errors import NodeNameTaken, SchemaMismatch, SettingsInvalid
from tus_server.core.jobs import Outcome
from tus_server.core.states import UploadState
from tus_server.core.upload import Part, Upload
from tus_server.ports import Attempt, Letters, Node
from tus_server.state.postgres import (
    PostgresOptions,
    PostgresReader,
    PostgresState,
    check_schema,
    connect,
    inspect,
    migrate,
)
from tus_server.state.postgres.errors import at_start
from tus_server.state.postgres.rows import SQL
from tus_server.state.postgres.schema import VERSION, migrations


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[Cluster]:
    """A database without tables."""
    found = Cluster(empty_database_url)
    yield found
    await found.close()


CATALOGUE = """
SELECT 'column', table_name, column_name, ordinal_position::text, data_type, column_default,
    is_nullable, identity_generation, generation_expression, collation_name
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT 'index', tablename, indexname, indexdef, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid),
    NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'options', relname, reloptions::text, relkind::text, NULL, NULL, NULL, NULL, NULL, NULL
FROM pg_class WHERE relnamespace = 'public'::regnamespace
ORDER BY 1, 2, 3, 4
"""


# --- schema


async def test_the_migrations_make_the_schema(cluster: Cluster, empty: Cluster) -> None:
    schema = files("tus_server.state.postgres").joinpath("schema.sql").read_text(encoding="utf-8")
    connection = await asyncpg.connect(empty.url)
    await connection.execute(schema)
    await connection.close()

    assert await cluster.query(CATALOGUE) == await empty.query(CATALOGUE)
    assert await cluster.query("SELECT * FROM probe") != []
    assert len(await empty.query("SELECT * FROM probe")) == 1


async def test_rows_from_before_the_extensions_are_kept(
    empty: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tus_server.state.postgres.schema.migrations", lambda: migrations()[:1])
        await migrate(PostgresOptions(empty.url))
    names = "id, protocol, state, created_at, state_on, committed_bytes, crc64, next_part_number"
    names += ", tail_length, generation, unclean, lease_epoch"
    await empty.query(
        f"INSERT INTO uploads ({names})"
        f" VALUES ('{'a' * 32}', 'tus', 'receiving', now(), now(), 3, 1, 2, 0, 0, false, 1)"
    )

    await migrate(PostgresOptions(empty.url))

    state = await empty.open("a")
    [upload] = await state.list_uploads(None, 10)
    assert (upload.offset, upload.state) == (3, UploadState.RECEIVING)
    assert (upload.concat, upload.expires_at, upload.digests) == (None, None, {})
    assert upload.max_size is None
    assert await state.find_expired(10, ahead_s=1e6) == []
    await state.commit(await claim(state, upload), upload, upload.with_bytes(1, 1))


async def test_rows_from_before_direct_uploads_are_kept(
    empty: Cluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tus_server.state.postgres.schema.migrations", lambda: migrations()[:2])
        await migrate(PostgresOptions(empty.url))
    names = "id, state, concat, state_on, freed_at"
    rows = """
        ('r', 'receiving', NULL, now(), NULL),
        ('v', 'verified', NULL, now() - interval '1 h', NULL),
        ('p', 'verified', 'partial', now(), NULL),
        ('c', 'canceled', NULL, now(), now()),
        ('x', 'expired', 'partial', now(), now())"""
    await empty.query(
        "INSERT INTO uploads (protocol, created_at, length, committed_bytes, crc64,"
        f" next_part_number, tail_length, generation, unclean, lease_epoch, {names})"
        " SELECT 'tus', now(), 3, 3, -2, 2, 0, 0, false, 1, *"
        f" FROM (VALUES {rows}) AS old ({names})"
    )
    await empty.query("INSERT INTO upload_parts SELECT seq, 1, 0, 3, -2, 'e' FROM uploads")
    await empty.query(
        "INSERT INTO outbox (upload_id, kind, created_at, delivered_at) VALUES"
        " ('v', 'verified', now(), NULL), ('c', 'canceled', now(), NULL),"
        " ('g', 'verified', now(), NULL), ('g', 'deleted', now(), NULL),"
        " ('d', 'verified', now(), now())"
    )

    await migrate(PostgresOptions(empty.url))

    state = await empty.open("a")
    uploads = {str(one.id): one for one in await state.list_uploads(None, 10)}
    assert set(uploads) == set("rvpcx")
    for one in uploads.values():
        assert (one.offset, one.crc64, one.file_id, one.auto_complete) == (
            3,
            2**64 - 2,
            None,
            False,
        )
        assert await state.find_parts(one.id) == [Part(1, 0, 3, 2**64 - 2, "e")]
    # Their outcome is decided, and no job is due for it.
    decided = {name: one.completed_at for name, one in uploads.items() if one.completed_at}
    assert decided == {name: uploads[name].state_on for name in "vc"}
    pending = await state.pending_events(10)
    assert [(one.upload_id, one.outcome, one.job) for one in pending] == [
        ("v", None, None),
        ("c", None, None),
        ("g", None, None),
        ("g", None, None),
    ]
    assert [one.upload_id for one in await state.list_events(Letters.DELIVERED, 10)] == ["d"]
    # And go on as they would have; one after the other also of an upload that is gone.
    events = await state.claim_events(10, 60)
    assert events == [replace(one, attempts=1) for one in pending[:3]]
    await state.settle_events([Attempt(one, one.done) for one in events])
    assert [one.id for one in await state.claim_events(10, 60)] == [pending[3].id]
    await walk(state, clock, uploads["r"], UploadState.COMPLETED, UploadState.VERIFIED)
    gone = uploads["v"].stepped(UploadState.DELETED, on=clock.now())
    lease = await claim(state, uploads["v"])
    await state.commit(lease, uploads["v"], gone, steps=(UploadState.DELETED,))
    told = [(one.kind, one.outcome) for one in (await state.pending_events(10))[1:]]
    assert told == [(UploadState.VERIFIED, Outcome.SUCCESS), (UploadState.DELETED, None)]


async def test_migrating_twice_does_nothing_more(empty: Cluster) -> None:
    options = PostgresOptions(empty.url)

    assert await migrate(options) == (0, VERSION)
    assert await migrate(options) == (VERSION, VERSION)

    versions = await empty.query("SELECT version FROM schema_version ORDER BY 1")
    assert versions == [(number,) for number in range(1, VERSION + 1)]
    await empty.open()


async def test_several_nodes_may_migrate_at_once(empty: Cluster) -> None:
    options = PostgresOptions(empty.url)

    found = await asyncio.gather(*(migrate(options) for _ in range(6)))

    assert {after for _, after in found} == {VERSION}
    await empty.open()


async def test_a_migration_that_fails_leaves_nothing(
    empty: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*migrations(), "CREATE TABLE half (id integer); SELECT 1 / 0;"]
    monkeypatch.setattr("tus_server.state.postgres.schema.migrations", lambda: broken)

    with pytest.raises(SettingsInvalid, match="division by zero"):
        await migrate(PostgresOptions(empty.url))

    assert await empty.query("SELECT to_regclass('half')::text") == [(None,)]
    assert await empty.query("SELECT max(version) FROM schema_version") == [(VERSION,)]


async def test_tables_of_another_application_are_left_alone(empty: Cluster) -> None:
    await empty.query("CREATE TABLE outbox (id integer)")

    with pytest.raises(SchemaMismatch, match="another application"):
        await migrate(PostgresOptions(empty.url))

    assert await empty.query("SELECT to_regclass('uploads')::text") == [(None,)]


async def test_a_database_without_tables_is_refused(empty: Cluster) -> None:
    with pytest.raises(SchemaMismatch, match=r"no tables .* run `tus-server migrate`"):
        await empty.open()
    with pytest.raises(SchemaMismatch, match=r"no tables"):
        await check_schema(PostgresOptions(empty.url))


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (VERSION + 1, f"knows schema {VERSION}, the database .* has {VERSION + 1}: install"),
        (VERSION - 1, f"has schema {VERSION - 1}, this server needs {VERSION}: run"),
    ],
)
async def test_another_schema_is_refused(
    empty: Cluster, monkeypatch: pytest.MonkeyPatch, version: int, sentence: str
) -> None:
    await migrate(PostgresOptions(empty.url))
    if version > VERSION:
        await empty.query("INSERT INTO schema_version (version) VALUES ($1)", version)
    else:
        monkeypatch.setattr("tus_server.state.postgres.schema.VERSION", VERSION + 1)
        sentence = f"has schema {VERSION}, this server needs {VERSION + 1}: run"

    with pytest.raises(SchemaMismatch, match=sentence):
        await empty.open()
    with pytest.raises(SchemaMismatch, match=sentence):
        async with PostgresReader(PostgresOptions(empty.url)):
            pass


async def test_the_tables_may_be_in_any_schema(empty: Cluster) -> None:
    await empty.query("CREATE SCHEMA apart")
    url = f"{empty.url}?search_path=apart"

    await migrate(PostgresOptions(url))
    await empty.open(url=url)

    assert await empty.query("SELECT count(*) FROM apart.nodes") == [(1,)]
    assert await empty.query("SELECT to_regclass('public.uploads')::text") == [(None,)]


# --- what stops a start


async def refusal(url: str, **options: Any) -> str:
    options = {"connect_timeout_s": 1.0} | options
    with pytest.raises(SettingsInvalid) as refused:
        await Cluster(url).open(**options)
    text = refused.value.detail
    assert text.startswith("TUS_STATE_URL: ")
    assert text.endswith(".")
    assert "\n" not in text
    assert "hunter2" not in text
    return text


async def test_what_is_wrong_with_the_url_is_told_in_a_sentence(cluster: Cluster) -> None:
    name = cluster.url.rpartition("/")[2]

    assert "create it" in await refusal(cluster.url.replace(name, "nowhere"))
    nobody = cluster.url.replace("postgres@", "nobody:hunter2@")
    assert "user 'nobody'" in await refusal(nobody)
    assert "TLS" in await refusal(f"{cluster.url}?sslmode=require")
    away = re.sub(r":\d+/", ":1/", cluster.url).replace("postgres@", "postgres:hunter2@")
    assert "start Postgres, or correct the address" in await refusal(away)
    unknown = "postgresql://postgres:hunter2@host.invalid/x"
    assert "cannot be resolved" in await refusal(unknown)


async def test_a_silent_address_is_told_in_time(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        text = await refusal(f"postgresql://a:hunter2@127.0.0.1:{port}/x", connect_timeout_s=0.2)

    assert f"127.0.0.1:{port} does not answer" in text


async def test_a_start_on_a_frozen_postgres_ends(
    cluster: Cluster, breakable_postgres: PostgresServer
) -> None:
    connection = await connect(PostgresOptions(cluster.url, statement_timeout_s=0.2))
    breakable_postgres.freeze()

    with pytest.raises(TimeoutError):
        await inspect(connection)

    connection.terminate()
    breakable_postgres.thaw()


def test_a_wrong_password_is_told_without_it() -> None:
    refused = asyncpg.InvalidPasswordError('password authentication failed for user "ann"')

    text = at_start(refused, "postgresql://ann:hunter2@db/x").detail

    assert "refuses the user 'ann'" in text
    assert "hunter2" not in text
    assert "hunter2" not in repr(PostgresOptions("postgresql://ann:hunter2@db/x"))


async def test_missing_rights_are_named(cluster: Cluster) -> None:
    await cluster.query("DROP ROLE IF EXISTS reader")
    await cluster.query("CREATE ROLE reader LOGIN")
    url = cluster.url.replace("postgres@", "reader@")
    try:
        assert "permission denied" in await refusal(url)
        await cluster.query("GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO reader")
        with pytest.raises(SettingsInvalid, match=r"lacks .*INSERT on uploads.*: GRANT it"):
            await cluster.open(url=url)
        async with PostgresReader(PostgresOptions(url)) as reader:
            assert await reader.list_uploads(None, 1) == []
    finally:
        await cluster.query("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM reader")
        await cluster.query("DROP ROLE reader")


async def test_a_database_that_takes_no_writes_is_refused(empty: Cluster) -> None:
    await migrate(PostgresOptions(empty.url))
    name = empty.url.rpartition("/")[2]
    await empty.query(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')

    with pytest.raises(SettingsInvalid, match="takes no writes"):
        await empty.open()


async def test_what_can_lose_bytes_is_warned_of(empty: Cluster, logged: Callable[[], str]) -> None:
    await migrate(PostgresOptions(empty.url))
    name = empty.url.rpartition("/")[2]
    await empty.query(f'ALTER DATABASE "{name}" SET synchronous_commit = off')

    await empty.open()

    assert "synchronous_commit = off" in logged()
    connection = await connect(PostgresOptions(empty.url))
    facts = await inspect(connection)
    await connection.close()
    assert facts.faults() == []
    assert (facts.synchronous_commit, facts.schema) == ("off", VERSION)
    assert facts.major_version >= 13


async def test_without_notifications_a_process_works_and_says_so(
    cluster: Cluster, clock: FakeClock, logged: Callable[[], str]
) -> None:
    nowhere = "postgresql://ann:hunter2@127.0.0.1:1/x"
    state = await cluster.open("a", listen_url=nowhere)

    assert not state.hears
    upload = await create(state, clock)
    await state.release(await claim(state, upload))
    warned = logged()
    assert "TUS_STATE_LISTEN_URL: nothing answers" in warned
    assert "hunter2" not in warned


# --- nodes


async def age(cluster: Cluster, label: str, seconds: int) -> None:
    """Let a node not have been heard of for some time."""
    sql = "UPDATE nodes SET seen_at = now() - make_interval(secs => $2) WHERE label = $1"
    await cluster.query(sql, label, seconds)


async def test_a_node_is_known_to_the_others(cluster: Cluster) -> None:
    first, second = await cluster.open("a"), await cluster.open("b")

    found = await second.find_node("id-of-a")

    assert found is not None
    assert found.node == Node("id-of-a", "a")
    assert 0 <= found.silent_s < 30
    assert await first.find_node("nobody") is None
    async with PostgresReader(PostgresOptions(cluster.url)) as reader:
        again = await reader.find_node("id-of-a")
        assert await reader.find_stale_nodes(3600) == []
    assert again is not None
    assert again.node == found.node


async def test_one_who_looks_on_finds_what_a_reaper_would(
    cluster: Cluster, clock: FakeClock
) -> None:
    state = await cluster.open("a")
    expired = await create(state, clock, concat="partial", expires_at=clock.now())
    kept = await create(state, clock, state=UploadState.VERIFIED, length=0)
    final = make_upload(clock, concat="final;...")
    await state.create_upload(final, claim=False, partials=[expired.id])

    async with PostgresReader(PostgresOptions(cluster.url)) as reader:
        assert await reader.find_expired(10) == [expired]
        assert await reader.find_kept_longer(10, kept_s=60) == [kept]
        assert await reader.find_partials(final.id) == [expired]
        assert await reader.find_uploads([kept.id]) == {kept.id: kept}
        assert await reader.find_parts(kept.id) == []


async def test_a_beat_shows_that_the_node_is_alive(cluster: Cluster) -> None:
    first, second = await cluster.open("a"), await cluster.open("b")
    await age(cluster, "a", 100)
    silent = await second.find_node("id-of-a")

    await first.beat([])

    found = await second.find_node("id-of-a")
    assert silent is not None
    assert found is not None
    assert silent.silent_s >= 100
    assert found.silent_s < 30


async def open_as(cluster: Cluster, node_id: str, label: str) -> None:
    """Start another data directory under a label."""
    state = PostgresState(
        PostgresOptions(cluster.url),
        node=Node(node_id, label),
        process="f" * 32,
        has_ended=lambda process: False,
    )
    async with state:
        pass


async def test_a_name_that_another_node_runs_under_is_refused(cluster: Cluster) -> None:
    await cluster.open("a")

    with pytest.raises(NodeNameTaken, match=r"'a'.*TUS_NODE_NAME"):
        await open_as(cluster, "other", "a")

    assert await cluster.query("SELECT id, label FROM nodes") == [("id-of-a", "a")]


async def test_several_processes_share_a_node_and_its_name(cluster: Cluster) -> None:
    await cluster.open("a")
    await cluster.open("a")

    assert await cluster.query("SELECT count(*) FROM nodes") == [(1,)]


async def test_processes_of_a_new_node_may_start_at_the_same_moment(cluster: Cluster) -> None:
    for node in range(5):  # the row has to be new for every race
        await asyncio.gather(*(open_as(cluster, f"id-{node}", f"n{node}") for _ in range(6)))

    assert await cluster.query("SELECT count(*) FROM nodes") == [(5,)]


async def test_the_name_of_a_node_that_is_gone_is_free(cluster: Cluster) -> None:
    state = await cluster.open("a")
    await age(cluster, "a", 61)

    await open_as(cluster, "other", "a")

    old, new = await state.find_node("id-of-a"), await state.find_node("other")
    assert old is not None
    assert new is not None
    assert old.node.label == new.node.label == "a"  # messages about its tails still name it
    await cluster.query("UPDATE nodes SET stopped_at = NULL WHERE id = 'other' RETURNING 1")
    with pytest.raises(NodeNameTaken):
        await cluster.open("a")


async def test_the_name_of_a_node_that_has_stopped_is_free_until_it_beats_again(
    cluster: Cluster,
) -> None:
    state = await cluster.open("a")
    await state.mark_stopped()
    await state.beat([])
    with pytest.raises(NodeNameTaken):
        await open_as(cluster, "other", "a")

    await state.mark_stopped()

    await open_as(cluster, "other", "a")


async def test_a_node_may_change_its_name(cluster: Cluster) -> None:
    await cluster.open("a")

    await open_as(cluster, "id-of-a", "z")

    assert await cluster.query("SELECT id, label FROM nodes") == [("id-of-a", "z")]


# --- the statements


def test_every_statement_is_one() -> None:
    assert all(text and ";" not in text for text in SQL.values())


async def fill(cluster: Cluster, upload: Upload) -> None:
    """Give the table 10,000 rows like that of `upload`."""
    names = "protocol, state, created_at, state_on, length, committed_bytes, crc64, expires_at"
    names += ", next_part_number, tail_length, generation, unclean, lease_epoch, freed_at"
    await cluster.query(
        f"INSERT INTO uploads (id, {names})"
        f" SELECT id || '.' || number, {names} FROM uploads, generate_series(1, 10000) AS number"
        " WHERE id = $1",
        upload.id,
    )
    await cluster.query("VACUUM ANALYZE uploads")


async def plan_of(cluster: Cluster, query: str, values: str) -> list[str]:
    """Run a query of ours; give how, when that took little."""
    connection = await asyncpg.connect(cluster.url)
    # As after many passes, when Postgres plans without looking at the parameters.
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE pass AS {SQL[query]}")
    plan = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING off) EXECUTE pass ({values})")
    await connection.close()
    lines = [line for (line,) in plan]
    buffers = next(line for line in lines if "Buffers: " in line)
    assert sum(map(int, re.findall(r"(?:hit|read)=(\d+)", buffers))) < 100, lines
    return lines


@pytest.mark.parametrize("state", [UploadState.VERIFIED, UploadState.RECEIVING])
async def test_the_recovery_reads_few_rows_however_many_there_are(
    cluster: Cluster, clock: FakeClock, state: UploadState
) -> None:
    length = 0 if state is UploadState.VERIFIED else 5
    store = await cluster.open("a")
    await fill(cluster, await create(store, clock, state=state, length=length))
    await create(store, clock, state=UploadState.COMPLETED, length=0)

    plan = await plan_of(cluster, "claim_unfinished", "10, NULL, false, 0, 'x/y', 1, '', 3600")

    assert any("uploads_to_recover" in line for line in plan), plan


@pytest.mark.parametrize(
    "state", [UploadState.VERIFIED, UploadState.RECEIVING, UploadState.EXPIRED]
)
async def test_the_reaper_reads_few_rows_however_many_there_are(
    cluster: Cluster, clock: FakeClock, state: UploadState
) -> None:
    store = await cluster.open("a")
    now = datetime.now(UTC)
    like = await create(
        store,
        clock,
        state=state,
        state_on=now,
        length=0,
        expires_at=None if state is UploadState.VERIFIED else now + timedelta(days=7),
        freed_at=now if state is UploadState.EXPIRED else None,
    )
    await fill(cluster, like)
    ones = [await create(store, clock, concat="partial") for _ in range(3)]
    for _ in range(3):
        final = make_upload(clock, concat="final;...")
        await store.create_upload(final, claim=False, partials=[one.id for one in ones])

    for query, values, index in (
        ("find_expired", "10, NULL, 0", "uploads_expiring"),
        ("find_expired", f"10, '{like.id}', 0", "uploads_expiring"),
        ("find_kept_longer", "10, NULL, 3600", "uploads_finished"),
        ("purge", "10, 3600", "uploads_ended"),
        ("ready_finals", "10, NULL", "uploads_awaiting"),
        ("ready_finals_of", f"10, NULL, '{ones[0].id}'", "Scan"),
        ("find_partials", f"'{final.id}'", "uploads_pkey"),
        ("find_stale_nodes", "3600", "uploads_by_tail"),
    ):
        plan = await plan_of(cluster, query, values)
        assert any(index in line for line in plan), (query, plan)


@pytest.mark.parametrize("state", [UploadState.VERIFIED, UploadState.RECEIVING])
async def test_uploads_of_the_application_are_found_however_many_there_are(
    cluster: Cluster, clock: FakeClock, state: UploadState
) -> None:
    store = await cluster.open("a")
    await fill(cluster, await create(store, clock, state=state, length=0))
    wanted = {"file_id": "f", "request_key": "k", "auto_complete": True}
    upload = make_upload(clock, protocol="single", length=3, part_size=3, **wanted)
    await store.create_upload(upload, claim=False)

    for query, values, index in (
        ("find_active", "'f'", "uploads_"),
        ("find_by_file_id", "'f', NULL, 10", "uploads_by_file"),
        ("find_requested", "'k'", "uploads_requested"),
        ("find_auto_complete", "10, NULL", "uploads_auto_complete"),
    ):
        plan = await plan_of(cluster, query, values)
        assert any(index in line for line in plan), (query, plan)


async def test_events_are_found_however_many_were_delivered(
    cluster: Cluster, clock: FakeClock
) -> None:
    store = await cluster.open("a")
    columns = "upload_id, upload_seq, kind, created_at, delivered_at"
    await cluster.query(
        f"INSERT INTO outbox ({columns}) SELECT number::text, number, 'verified', now(), now()"
        " FROM generate_series(1, 10000) AS number"
    )
    await cluster.query("VACUUM ANALYZE outbox")
    await create(store, clock, length=0)
    await cluster.query(f"INSERT INTO outbox ({columns}) VALUES ('a', 0, 'verified', now(), NULL)")

    for query, values, index in (
        ("claim_events", "10, 60", "outbox_due"),
        ("claim_events", "10, 60", "outbox_pending_of"),
        ("purge_events", "10, 3600", "outbox_delivered"),
        ("list_events", "'dead', 10, NULL, NULL", "outbox_dead"),
        ("list_events", "'pending', 10, NULL, NULL", "outbox_"),
        ("list_events", "'delivered', 10, NULL, NULL", "outbox_pkey"),
    ):
        plan = await plan_of(cluster, query, values)
        assert any(index in line for line in plan), (query, plan)


async def test_a_backlog_that_no_statistics_know_of_is_claimed_by_index(cluster: Cluster) -> None:
    await cluster.open("a")
    await cluster.query("VACUUM ANALYZE outbox")
    columns = "upload_id, upload_seq, kind, created_at"
    await cluster.query(
        f"INSERT INTO outbox ({columns}) SELECT number::text, number, 'verified', now()"
        " FROM generate_series(1, 10000) AS number"
    )

    plan = await plan_of(cluster, "claim_events", "10, 60")

    earlier = next(place for place, line in enumerate(plan) if "outbox_pending_of" in line)
    assert "(upload_seq = outbox.upload_seq) AND (id < outbox.id)" in plan[earlier + 1], plan
    assert "outbox_due" in plan[next(p for p, line in enumerate(plan) if "due_at <=" in line) - 1]


async def test_renewals_and_commits_under_a_lease_leave_the_indexes_alone(
    cluster: Cluster, clock: FakeClock
) -> None:
    async def updates() -> tuple[int, int]:
        """Give how many there were, and how many of them were HOT."""
        await cluster.query("SELECT pg_stat_force_next_flush()")
        counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
        ((all_of_them, hot),) = await cluster.query(f"{counts} WHERE relname = 'uploads'")
        return all_of_them, hot

    before = await updates()
    state = await cluster.open("a")
    later = datetime.now(UTC) + timedelta(days=7)  # it moves in steps of a minute (core.expiry)
    upload = await create(state, clock, length=100, expires_at=later, concat="partial")
    lease = await claim(state, upload)
    for _ in range(10):
        await state.beat([lease])
        after = upload.with_bytes(1, 1)
        await state.commit(lease, upload, after)
        upload = after
    await cluster.close()  # which tells the statistics

    async def are_counted() -> bool:
        return (await updates())[0] - before[0] >= 21

    await eventually(are_counted, "all updates are counted")
    now = await updates()
    assert now[1] - before[1] >= 20
