-- One statement is one round trip and one transaction. Guards are in WHERE: UPDATE waits for a row
-- that another transaction changes, and checks its WHERE again on what it finds then.
--
-- Lists come as text (a,b,c) and receipts as JSON: for a parameter that is an array asyncpg asks
-- each new connection for the type, with three statements more.

-- name: create_upload
-- $24..$26: epoch, holder and seconds of the lease; without one 0 and NULL.
WITH created AS (
    INSERT INTO uploads (
        id, protocol, created_at, owner, metadata, state, state_on, length, committed_bytes, crc64,
        next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
        tail_generation, generation, unclean, error_code, error_message, freed_at, lease_epoch,
        lease_holder, lease_until
    ) VALUES (
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25, clock_timestamp() + make_interval(secs => $26)
    )
    RETURNING seq, state, state_on
)
INSERT INTO status_history (upload_seq, state, state_on)
SELECT seq, state, state_on FROM created

-- name: observe_upload
SELECT id, protocol, created_at, owner, metadata, state, state_on, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, error_code, error_message, freed_at,
    lease_epoch, lease_holder
FROM uploads WHERE id = $1

-- name: claim_upload
-- $1 id, $2 the new holder, $3 seconds of the lease, $4 offset or NULL, $5 part numbers,
-- $6 a holder that is known to have ended, or NULL.
-- Without a grant the row is that of the snapshot, and may be older than the refusal.
WITH granted AS (
    UPDATE uploads SET
        lease_epoch = lease_epoch + 1,
        lease_holder = $2,
        lease_until = clock_timestamp() + make_interval(secs => $3),
        release_wanted = false,
        next_part_number = next_part_number + $5,
        -- Taken from one who had not let go, and may wake up.
        generation = CASE WHEN lease_holder IS NULL THEN generation ELSE lease_epoch + 1 END,
        unclean = unclean OR lease_holder IS NOT NULL
    WHERE id = $1
      AND (lease_holder IS NULL OR lease_until <= clock_timestamp() OR lease_holder = $6)
      AND ($4::bigint IS NULL
           OR (committed_bytes + tail_length = $4 AND state IN ('initiated', 'receiving')))
    RETURNING *
)
SELECT id, protocol, created_at, owner, metadata, state, state_on, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, error_code, error_message, freed_at,
    lease_epoch, lease_holder, true AS is_granted, false AS is_alive
FROM granted
UNION ALL
SELECT id, protocol, created_at, owner, metadata, state, state_on, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, error_code, error_message, freed_at,
    lease_epoch, lease_holder, false, coalesce(lease_until > clock_timestamp(), false)
FROM uploads WHERE id = $1 AND NOT EXISTS (SELECT FROM granted)

-- name: commit
-- $1..$4: id, epoch, holder and offset as the writer knows them; $5, $6 its state and committed
-- bytes, without which a repetition could not be told from the first time. $7 release,
-- $8 seconds of the lease; $9..$26 the row; $27 steps, $28 those that are events, $29 note;
-- $30 receipts.
-- release_wanted outlives the release until the next claim: it tells here whether one waits.
-- Without release next_part_number never falls, however late a statement arrives.
WITH changed AS (
    UPDATE uploads SET
        lease_holder = CASE WHEN $7 THEN NULL ELSE lease_holder END,
        lease_until = CASE WHEN NOT $7 THEN clock_timestamp() + make_interval(secs => $8) END,
        state = $9,
        state_on = $10,
        length = $11,
        committed_bytes = $12,
        crc64 = $13,
        next_part_number = CASE WHEN $7 THEN $14 ELSE greatest(next_part_number, $14) END,
        object_key = $15,
        multipart_id = $16,
        part_size = $17,
        tail_length = $18,
        tail_crc64 = $19,
        tail_node = $20,
        tail_generation = $21,
        generation = $22,
        unclean = $23,
        error_code = $24,
        error_message = $25,
        freed_at = $26
    WHERE id = $1 AND lease_epoch = $2 AND lease_holder = $3
      AND committed_bytes + tail_length = $4 AND state = $5 AND committed_bytes = $6
    RETURNING seq, id, state, state_on, release_wanted
), history AS (
    INSERT INTO status_history (upload_seq, state, state_on, note)
    SELECT seq, step, changed.state_on, CASE WHEN step = changed.state THEN $29 END
    FROM changed, unnest(string_to_array($27, ',')) WITH ORDINALITY AS steps (step, position)
    ORDER BY position
), noted AS (
    INSERT INTO status_history (upload_seq, state, state_on, note)
    SELECT seq, state, clock_timestamp(), $29
    FROM changed WHERE $29::text IS NOT NULL AND $27::text = ''
), events AS (
    INSERT INTO outbox (upload_id, kind, created_at)
    SELECT id, event, changed.state_on
    FROM changed, unnest(string_to_array($28, ',')) WITH ORDINALITY AS events (event, position)
    ORDER BY position
), receipts AS (
    INSERT INTO upload_parts (upload_seq, number, start, size, crc64, etag)
    SELECT seq, part.* FROM changed, json_to_recordset($30::text::json)
        AS part (number integer, start bigint, size bigint, crc64 bigint, etag text)
)
SELECT CASE WHEN $7 AND release_wanted THEN pg_notify('tus_freed', id || ' ' || $3) END
FROM changed

-- name: release
-- $1 id, $2 epoch, $3 holder, $4 next part number or NULL, $5 whether it was clean.
WITH released AS (
    UPDATE uploads SET
        lease_holder = NULL,
        lease_until = NULL,
        next_part_number = coalesce($4, next_part_number),
        unclean = unclean OR NOT $5
    WHERE id = $1 AND lease_epoch = $2 AND lease_holder = $3
    RETURNING id, release_wanted
)
SELECT CASE WHEN release_wanted THEN pg_notify('tus_freed', id || ' ' || $3) END FROM released

-- name: ask_release
-- The notification goes to the holder's process alone: its channel has the name of the process.
WITH asked AS (
    UPDATE uploads SET release_wanted = true
    WHERE id = $1 AND lease_holder IS NOT NULL
    RETURNING id, lease_holder
)
SELECT pg_notify('tus_wanted_' || split_part(lease_holder, '/', 2), id)
FROM asked WHERE lease_holder <> $2

-- name: beat
-- $1 ids, $2 epochs, $3 holder, $4 seconds of the lease, $5 node. Gives what is still held.
-- The node's row is touched once in a few seconds, however many processes share it.
WITH seen AS (
    UPDATE nodes SET seen_at = now(), stopped_at = NULL
    WHERE id = $5 AND (seen_at < now() - interval '2 seconds' OR stopped_at IS NOT NULL)
)
UPDATE uploads SET lease_until = clock_timestamp() + make_interval(secs => $4)
FROM unnest(string_to_array($1, ','), string_to_array($2, ',')::bigint[]) AS mine (id, epoch)
WHERE uploads.id = mine.id AND lease_epoch = mine.epoch AND lease_holder = $3
RETURNING uploads.id, release_wanted

-- name: holders_of_node
-- Who has leases at a node, to find out which of them have ended.
SELECT DISTINCT lease_holder FROM uploads
WHERE to_recover AND starts_with(lease_holder, $1)

-- name: claim_unfinished
-- $1 limit, $2 id of the row to begin behind, or NULL, $3 whether receiving too, $4 part numbers,
-- $5 the new holder, $6 seconds of the lease, $7 holders that are known to have ended, $8 seconds
-- from the first time an unclean upload was freed to the second.
-- The first search goes by the index uploads_to_recover. The second reads the table, but not a row
-- of it without $3; in one WHERE with the first it would keep that from its index.
WITH left_over AS (
    SELECT seq FROM uploads
    WHERE to_recover
      AND seq > coalesce((SELECT seq FROM uploads WHERE id = $2), 0)
      AND (lease_holder IS NULL OR lease_until <= now()
           OR lease_holder = ANY (string_to_array($7, ',')))
      AND (freed_at IS NULL OR NOT unclean OR freed_at <= now() - make_interval(secs => $8))
    ORDER BY seq LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
), unfinished AS (
    SELECT seq FROM uploads
    WHERE $3 AND NOT to_recover AND state IN ('initiated', 'receiving')
      AND seq > coalesce((SELECT seq FROM uploads WHERE id = $2), 0)
    ORDER BY seq LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
), found AS (
    SELECT seq FROM (SELECT seq FROM left_over UNION ALL SELECT seq FROM unfinished) AS either
    ORDER BY seq LIMIT $1
), claimed AS (
    UPDATE uploads SET
        lease_epoch = lease_epoch + 1,
        lease_holder = $5,
        lease_until = clock_timestamp() + make_interval(secs => $6),
        release_wanted = false,
        next_part_number = next_part_number + $4,
        generation = CASE WHEN lease_holder IS NULL THEN generation ELSE lease_epoch + 1 END,
        unclean = unclean OR lease_holder IS NOT NULL
    FROM found WHERE uploads.seq = found.seq
    RETURNING uploads.*
)
SELECT id, protocol, created_at, owner, metadata, state, state_on, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, error_code, error_message, freed_at,
    lease_epoch
FROM claimed ORDER BY seq

-- name: list_uploads
-- Newest first, from behind the row $2 (NULL: from the newest); $1 states or NULL for all.
SELECT id, protocol, created_at, owner, metadata, state, state_on, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, error_code, error_message, freed_at
FROM uploads
WHERE ($1::text IS NULL OR state = ANY (string_to_array($1, ',')))
  AND ($2::text IS NULL OR seq < (SELECT seq FROM uploads WHERE id = $2))
ORDER BY seq DESC LIMIT $3

-- name: find_parts
SELECT number, start, size, crc64, etag FROM upload_parts
WHERE upload_seq = (SELECT seq FROM uploads WHERE id = $1) ORDER BY start

-- name: history
SELECT state, state_on, note FROM status_history
WHERE upload_seq = (SELECT seq FROM uploads WHERE id = $1) ORDER BY id DESC

-- name: pending_events
SELECT upload_id, kind, created_at FROM outbox WHERE delivered_at IS NULL ORDER BY id LIMIT $1

-- name: retire_label
-- A label is free when its node has stopped, or has not been heard of for $3 seconds.
UPDATE nodes SET retired = true
WHERE label = $2 AND id <> $1 AND NOT retired
  AND (stopped_at IS NOT NULL OR seen_at < now() - make_interval(secs => $3))

-- name: register_node
INSERT INTO nodes (id, label) VALUES ($1, $2)
ON CONFLICT (id) DO UPDATE SET
    label = excluded.label, started_at = now(), seen_at = now(), stopped_at = NULL, retired = false

-- name: stop_node
UPDATE nodes SET stopped_at = now() WHERE id = $1

-- name: find_node
SELECT id, label, extract(epoch FROM now() - seen_at)::float8 FROM nodes WHERE id = $1

-- name: check
-- A write that changes nothing but must reach the disk.
UPDATE probe SET written_at = now() WHERE id = 1

-- name: server_facts
SELECT current_setting('server_version'), current_setting('server_version_num')::integer,
    current_setting('fsync'), current_setting('synchronous_commit'),
    pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'

-- name: missing_rights
-- $1 our tables. Nobody inserts into or deletes from `probe`.
SELECT wanted || ' on ' || name
FROM unnest(string_to_array($1, ',')) AS name, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted
WHERE to_regclass(name) IS NOT NULL AND NOT has_table_privilege(to_regclass(name), wanted)
  AND (name <> 'probe' OR wanted IN ('SELECT', 'UPDATE'))

-- name: has_schema
-- Not to_regclass(): a session that once found no table goes on to find none while it waits for the
-- lock, until the transaction ends.
SELECT EXISTS (
    SELECT FROM pg_class WHERE relname = 'schema_version' AND pg_table_is_visible(oid)
)

-- name: schema_version
SELECT max(version) FROM schema_version

-- name: lock
-- Until the end of the transaction.
SELECT pg_advisory_xact_lock($1)

-- name: add_version
INSERT INTO schema_version (version) VALUES ($1)

-- name: notify
SELECT pg_notify($1, '')
