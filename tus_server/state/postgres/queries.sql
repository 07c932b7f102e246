-- One statement is one round trip and one transaction. Guards are in WHERE: UPDATE waits for a row
-- that another transaction changes, and checks its WHERE again on what it finds then.
--
-- Lists come as text (a,b,c) and receipts as JSON: for a parameter that is an array asyncpg asks
-- each new connection for the type, with three statements more.

-- name: create_upload
-- $34..$36: epoch, holder and seconds of the lease; without one 0 and NULL. $37: whether that is an
-- event.
WITH created AS (
    INSERT INTO uploads (
        id, protocol, created_at, owner, metadata, concat, state, state_on, length,
        committed_bytes, crc64, next_part_number, object_key, multipart_id, part_size, tail_length,
        tail_crc64, tail_node, tail_generation, generation, unclean, error_code, error_message,
        freed_at, expires_at, digests, completed_at, content_type, max_size, file_id, request_key,
        instructions, auto_complete, lease_epoch, lease_holder, lease_until
    ) VALUES (
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35,
        clock_timestamp() + make_interval(secs => $36)
    )
    RETURNING seq, id, state, state_on
), news AS (
    INSERT INTO outbox (upload_id, upload_seq, kind, created_at)
    SELECT id, seq, state, state_on FROM created WHERE $37::boolean
)
INSERT INTO status_history (upload_seq, state, state_on)
SELECT seq, state, state_on FROM created

-- name: create_direct
-- The same, and the parts of a direct upload, as core.direct cuts it.
WITH created AS (
    INSERT INTO uploads (
        id, protocol, created_at, owner, metadata, concat, state, state_on, length,
        committed_bytes, crc64, next_part_number, object_key, multipart_id, part_size, tail_length,
        tail_crc64, tail_node, tail_generation, generation, unclean, error_code, error_message,
        freed_at, expires_at, digests, completed_at, content_type, max_size, file_id, request_key,
        instructions, auto_complete, lease_epoch, lease_holder, lease_until
    ) VALUES (
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35,
        clock_timestamp() + make_interval(secs => $36)
    )
    RETURNING seq, id, state, state_on, length, part_size
), news AS (
    INSERT INTO outbox (upload_id, upload_seq, kind, created_at)
    SELECT id, seq, state, state_on FROM created WHERE $37::boolean
), planned AS (
    INSERT INTO upload_parts (upload_seq, number, start, size)
    SELECT seq, number, (number - 1) * part_size,
        least(part_size, length - (number - 1) * part_size)
    FROM created,
        generate_series(1, greatest(1, (length + part_size - 1) / part_size)) AS number
)
INSERT INTO status_history (upload_seq, state, state_on)
SELECT seq, state, state_on FROM created

-- name: create_final
-- The same, and $38 the partial uploads it consists of, in order; the NULL of a missing one is
-- refused. A statement of its own, because it costs what every other upload can be spared.
WITH created AS (
    INSERT INTO uploads (
        id, protocol, created_at, owner, metadata, concat, state, state_on, length,
        committed_bytes, crc64, next_part_number, object_key, multipart_id, part_size, tail_length,
        tail_crc64, tail_node, tail_generation, generation, unclean, error_code, error_message,
        freed_at, expires_at, digests, completed_at, content_type, max_size, file_id, request_key,
        instructions, auto_complete, lease_epoch, lease_holder, lease_until
    ) VALUES (
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35,
        clock_timestamp() + make_interval(secs => $36)
    )
    RETURNING seq, id, state, state_on
), news AS (
    INSERT INTO outbox (upload_id, upload_seq, kind, created_at)
    SELECT id, seq, state, state_on FROM created WHERE $37::boolean
), members AS (
    INSERT INTO upload_members (final_seq, position, partial_seq)
    SELECT created.seq, position, partials.seq
    FROM created, unnest(string_to_array($38, ',')) WITH ORDINALITY AS listed (id, position)
    LEFT JOIN uploads AS partials ON partials.id = listed.id
)
INSERT INTO status_history (upload_seq, state, state_on)
SELECT seq, state, state_on FROM created

-- name: observe_upload
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete, lease_epoch, lease_holder
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
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete, lease_epoch, lease_holder, true AS is_granted, false AS is_alive
FROM granted
UNION ALL
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete, lease_epoch, lease_holder, false,
    coalesce(lease_until > clock_timestamp(), false)
FROM uploads WHERE id = $1 AND NOT EXISTS (SELECT FROM granted)

-- name: commit
-- $1..$4: id, epoch, holder and offset as the writer knows them; $5, $6 its state and committed
-- bytes, without which a repetition could not be told from the first time; $37 its generation, which
-- record_parts moves. $7 release, $8 seconds of the lease; $9..$30 the row; $31 steps, $32 those
-- that are events, $33 note; $34 receipts; $35 the outcome that the last step decides, or NULL,
-- $36 the job for it.
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
        freed_at = $26,
        expires_at = $27,
        digests = $28,
        completed_at = $29,
        content_type = $30
    WHERE id = $1 AND lease_epoch = $2 AND lease_holder = $3
      AND committed_bytes + tail_length = $4 AND state = $5 AND committed_bytes = $6
      AND generation = $37
    RETURNING seq, id, state, state_on, release_wanted
), history AS (
    INSERT INTO status_history (upload_seq, state, state_on, note)
    SELECT seq, step, changed.state_on, CASE WHEN step = changed.state THEN $33 END
    FROM changed, unnest(string_to_array($31, ',')) WITH ORDINALITY AS steps (step, position)
    ORDER BY position
), noted AS (
    INSERT INTO status_history (upload_seq, state, state_on, note)
    SELECT seq, state, clock_timestamp(), $33
    FROM changed WHERE $33::text IS NOT NULL AND $31::text = ''
), events AS (
    INSERT INTO outbox (upload_id, upload_seq, kind, created_at, due_at, outcome, job)
    SELECT id, seq, event, changed.state_on, clock_timestamp(),
        CASE WHEN event = changed.state THEN $35::text END,
        CASE WHEN event = changed.state THEN $36::text END
    FROM changed, unnest(string_to_array($32, ',')) WITH ORDINALITY AS events (event, position)
    ORDER BY position
), receipts AS (
    INSERT INTO upload_parts (upload_seq, number, start, size, crc64, etag)
    SELECT seq, part.* FROM changed, json_to_recordset($34::text::json)
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
-- $1 ids, $2 epochs, $3 holder, $4 seconds of the lease, $5 node. Gives what is still held, and
-- in a row of its own the time.
-- The node's row is touched once in a few seconds, however many processes share it.
WITH seen AS (
    UPDATE nodes SET seen_at = now(), stopped_at = NULL
    WHERE id = $5 AND (seen_at < now() - interval '2 seconds' OR stopped_at IS NOT NULL)
), renewed AS (
    UPDATE uploads SET lease_until = clock_timestamp() + make_interval(secs => $4)
    FROM unnest(string_to_array($1, ','), string_to_array($2, ',')::bigint[]) AS mine (id, epoch)
    WHERE uploads.id = mine.id AND lease_epoch = mine.epoch AND lease_holder = $3
    RETURNING uploads.id, release_wanted
)
SELECT id, release_wanted, NULL::timestamptz FROM renewed
UNION ALL
SELECT NULL, NULL, clock_timestamp()

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
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete, lease_epoch
FROM claimed ORDER BY seq

-- name: list_uploads
-- Newest first, from behind the row $2 (NULL: from the newest); $1 states or NULL for all.
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE ($1::text IS NULL OR state = ANY (string_to_array($1, ',')))
  AND ($2::text IS NULL OR seq < (SELECT seq FROM uploads WHERE id = $2))
ORDER BY seq DESC LIMIT $3

-- name: find_uploads
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads WHERE id = ANY (string_to_array($1, ','))

-- name: find_partials
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM upload_members JOIN uploads ON seq = partial_seq
WHERE final_seq = (SELECT seq FROM uploads WHERE id = $1) ORDER BY position

-- name: find_expired
-- $1 limit, $2 id of the row to begin behind, or NULL, $3 seconds to look ahead.
-- The first condition is that of the index uploads_expiring. Pages go by it: the row $2 has ended
-- meanwhile, and its expires_at stays what it was.
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE (state IN ('initiated', 'receiving') OR (state = 'verified' AND concat = 'partial'))
  AND expires_at <= now() + make_interval(secs => $3)
  AND (expires_at, seq) > (
      coalesce((SELECT expires_at FROM uploads WHERE id = $2), '-infinity'),
      coalesce((SELECT seq FROM uploads WHERE id = $2), 0))
  AND NOT (state = 'verified' AND EXISTS (
      SELECT FROM upload_members JOIN uploads AS finals ON finals.seq = final_seq
      WHERE partial_seq = uploads.seq AND finals.state = 'initiated'))
ORDER BY expires_at, seq LIMIT $1

-- name: find_kept_longer
-- $1 limit, $2 id of the row to begin behind, or NULL, $3 seconds.
-- The first two conditions are those of the index uploads_finished. Pages go by it: the row $2 is
-- deleted meanwhile, but its history tells when it was finished.
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE state IN ('verified', 'accepted', 'rejected') AND concat IS DISTINCT FROM 'partial'
  AND state_on < now() - make_interval(secs => $3)
  AND (state_on, seq) > (
      coalesce((
          SELECT max(passed.state_on) FROM status_history AS passed
          WHERE upload_seq = (SELECT seq FROM uploads WHERE id = $2)
            AND passed.state IN ('verified', 'accepted', 'rejected')), '-infinity'),
      coalesce((SELECT seq FROM uploads WHERE id = $2), 0))
ORDER BY state_on, seq LIMIT $1

-- name: ready_finals
-- By the index uploads_awaiting. A lost partial settles it, whatever becomes of the others.
SELECT id FROM uploads
WHERE state = 'initiated' AND concat <> 'partial'
  AND seq > coalesce((SELECT seq FROM uploads WHERE id = $2), 0)
  AND (NOT EXISTS (
           SELECT FROM upload_members JOIN uploads AS partials ON partials.seq = partial_seq
           WHERE final_seq = uploads.seq
             AND partials.state IN ('initiated', 'receiving', 'completed'))
       OR EXISTS (
           SELECT FROM upload_members JOIN uploads AS partials ON partials.seq = partial_seq
           WHERE final_seq = uploads.seq
             AND partials.state IN ('deleted', 'error', 'canceled', 'expired')))
ORDER BY seq LIMIT $1

-- name: ready_finals_of
-- The same of those alone that consist of $3 among others.
SELECT id FROM uploads
WHERE state = 'initiated' AND concat <> 'partial'
  AND seq IN (
      SELECT final_seq FROM upload_members
      WHERE partial_seq = (SELECT seq FROM uploads WHERE id = $3))
  AND seq > coalesce((SELECT seq FROM uploads WHERE id = $2), 0)
  AND (NOT EXISTS (
           SELECT FROM upload_members JOIN uploads AS partials ON partials.seq = partial_seq
           WHERE final_seq = uploads.seq
             AND partials.state IN ('initiated', 'receiving', 'completed'))
       OR EXISTS (
           SELECT FROM upload_members JOIN uploads AS partials ON partials.seq = partial_seq
           WHERE final_seq = uploads.seq
             AND partials.state IN ('deleted', 'error', 'canceled', 'expired')))
ORDER BY seq LIMIT $1

-- name: is_needed
SELECT EXISTS (
    SELECT FROM upload_members JOIN uploads AS finals ON finals.seq = final_seq
    WHERE partial_seq = (SELECT seq FROM uploads WHERE id = $1)
      AND finals.state IN ('initiated', 'completed'))

-- name: let_partials_expire
-- $1 the final upload, $2 seconds. In one order of rows: two finals may consist of the same ones.
WITH used AS (
    SELECT seq FROM uploads
    WHERE seq IN (
        SELECT partial_seq FROM upload_members
        WHERE final_seq = (SELECT seq FROM uploads WHERE id = $1))
      AND state NOT IN ('deleted', 'error', 'canceled', 'expired')
      AND (expires_at IS NULL OR expires_at > now() + make_interval(secs => $2))
    ORDER BY seq FOR NO KEY UPDATE
)
UPDATE uploads SET expires_at = now() + make_interval(secs => $2)
FROM used WHERE uploads.seq = used.seq

-- name: purge
-- $1 limit, $2 seconds since the end. By the index uploads_ended. What somebody holds or looks at
-- just now is left for the next time: a final upload that is being created holds its partials.
WITH ended AS (
    SELECT seq FROM uploads
    WHERE freed_at IS NOT NULL AND NOT unclean AND state_on < now() - make_interval(secs => $2)
      AND lease_holder IS NULL
      AND NOT EXISTS (
          SELECT FROM upload_members JOIN uploads AS finals ON finals.seq = final_seq
          WHERE partial_seq = uploads.seq AND finals.state = 'initiated')
    ORDER BY state_on, seq LIMIT $1
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM uploads USING ended WHERE uploads.seq = ended.seq RETURNING uploads.seq
)
SELECT count(*) FROM gone

-- name: claim_duty
-- $1 name, $2 holder, $3 seconds.
INSERT INTO duties (name, holder, until)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE duties.holder = excluded.holder OR duties.until <= clock_timestamp()
RETURNING true

-- name: find_parts
SELECT number, start, size, crc64, etag FROM upload_parts
WHERE upload_seq = (SELECT seq FROM uploads WHERE id = $1) ORDER BY start

-- name: record_parts
-- $1 id, $2 parts as JSON, each number once, $3 a later time at which it expires, or NULL,
-- $4 whether the first byte is an event. The row is locked first, then those of the parts: each is
-- then what the last one to change it has left, not what the snapshot shows. What changes nothing
-- leaves the generation as it is: only a commit from a row that is no more loses by it.
WITH found AS (
    SELECT seq, state AS was FROM uploads
    WHERE id = $1 AND state IN ('initiated', 'receiving') AND protocol IN ('single', 'multipart')
    FOR NO KEY UPDATE
), told AS (
    SELECT seq, part.number, part.crc64, part.etag
    FROM found, json_to_recordset($2::text::json) AS part (number integer, crc64 bigint, etag text)
), held AS (
    SELECT upload_seq, upload_parts.number, size, upload_parts.etag AS had, told.crc64, told.etag,
        (upload_parts.crc64, upload_parts.etag) IS DISTINCT FROM (told.crc64, told.etag) AS is_new
    FROM upload_parts JOIN told ON upload_seq = told.seq AND upload_parts.number = told.number
    FOR NO KEY UPDATE OF upload_parts
), written AS (
    UPDATE upload_parts SET crc64 = held.crc64, etag = held.etag
    FROM held
    WHERE upload_parts.upload_seq = held.upload_seq AND upload_parts.number = held.number
      AND is_new
), moved AS (
    SELECT coalesce(sum(CASE WHEN etag IS NULL THEN 0 ELSE size END
                        - CASE WHEN had IS NULL THEN 0 ELSE size END), 0) AS bytes,
        coalesce(bool_or(etag IS NOT NULL), false) AS begins,
        coalesce(bool_or(is_new), false) AS is_new
    FROM held
), changed AS (
    UPDATE uploads SET
        committed_bytes = committed_bytes + moved.bytes,
        generation = CASE WHEN moved.is_new OR expires_at < $3 THEN generation + 1 ELSE generation END,
        expires_at = CASE WHEN expires_at < $3 THEN $3 ELSE expires_at END,
        state = CASE WHEN moved.begins THEN 'receiving' ELSE state END,
        state_on = CASE WHEN moved.begins AND was = 'initiated' THEN clock_timestamp()
            ELSE state_on END
    FROM found, moved WHERE uploads.seq = found.seq
    RETURNING uploads.*, was
), history AS (
    INSERT INTO status_history (upload_seq, state, state_on)
    SELECT seq, state, state_on FROM changed WHERE state <> was
), news AS (
    INSERT INTO outbox (upload_id, upload_seq, kind, created_at)
    SELECT id, seq, state, state_on FROM changed WHERE state <> was AND $4::boolean
)
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM changed

-- name: find_by_file_id
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE file_id = $1 AND ($2::text IS NULL OR seq < (SELECT seq FROM uploads WHERE id = $2))
ORDER BY seq DESC LIMIT $3

-- name: find_active
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE file_id = $1 AND state IN ('initiated', 'receiving', 'completed', 'verified', 'accepted')

-- name: find_requested
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads WHERE request_key = $1

-- name: find_auto_complete
-- The conditions are those of the index uploads_auto_complete.
SELECT id, protocol, created_at, owner, metadata, concat, state, state_on, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE state IN ('initiated', 'receiving') AND auto_complete
  AND protocol IN ('single', 'multipart')
  AND seq > coalesce((SELECT seq FROM uploads WHERE id = $2), 0)
ORDER BY seq LIMIT $1

-- name: histories
-- $1 ids.
SELECT uploads.id, status_history.state, status_history.state_on, note
FROM status_history JOIN uploads ON upload_seq = seq
WHERE uploads.id = ANY (string_to_array($1, ',')) ORDER BY status_history.id DESC

-- name: history
SELECT state, state_on, note FROM status_history
WHERE upload_seq = (SELECT seq FROM uploads WHERE id = $1) ORDER BY id DESC

-- name: pending_events
SELECT upload_id, kind, created_at, id, outcome, job, attempts, done, error, due_at, delivered_at,
    given_up_at
FROM outbox WHERE delivered_at IS NULL AND given_up_at IS NULL ORDER BY id LIMIT $1

-- name: list_events
-- $1 kind, $2 limit, $3 id to begin below, or NULL, $4 upload, or NULL. One search of three is made,
-- so that the few dead letters are found by their index.
SELECT upload_id, kind, created_at, id, outcome, job, attempts, done, error, due_at, delivered_at,
    given_up_at
FROM (
    (SELECT * FROM outbox
     WHERE $1 = 'dead' AND given_up_at IS NOT NULL
       AND ($3::bigint IS NULL OR id < $3) AND ($4::text IS NULL OR upload_id = $4)
     ORDER BY id DESC LIMIT $2)
    UNION ALL
    (SELECT * FROM outbox
     WHERE $1 = 'pending' AND delivered_at IS NULL AND given_up_at IS NULL
       AND ($3::bigint IS NULL OR id < $3) AND ($4::text IS NULL OR upload_id = $4)
     ORDER BY id DESC LIMIT $2)
    UNION ALL
    (SELECT * FROM outbox
     WHERE $1 = 'delivered' AND delivered_at IS NOT NULL
       AND ($3::bigint IS NULL OR id < $3) AND ($4::text IS NULL OR upload_id = $4)
     ORDER BY id DESC LIMIT $2)
) AS listed ORDER BY id DESC LIMIT $2

-- name: find_event
SELECT upload_id, kind, created_at, id, outcome, job, attempts, done, error, due_at, delivered_at,
    given_up_at
FROM outbox WHERE id = $1

-- name: claim_events
-- $1 limit, $2 seconds. What others are looking at just now is skipped, not waited for; the
-- events of an upload come one after the other. Statistics of a queue are always out of date, most of
-- all when it has grown because a target is away: a NOT EXISTS became a join that read all of it for
-- each row (5 s for 100,000). A subquery is no join, and there is one index that it can use.
WITH due AS (
    SELECT id FROM outbox
    WHERE delivered_at IS NULL AND given_up_at IS NULL
      AND due_at <= now() AND (claimed_until IS NULL OR claimed_until <= now())
      AND (
          SELECT earlier.id FROM outbox AS earlier
          WHERE earlier.upload_seq = outbox.upload_seq AND earlier.id < outbox.id
            AND coalesce(earlier.delivered_at, earlier.given_up_at) IS NULL
          LIMIT 1) IS NULL
    ORDER BY due_at, id LIMIT $1
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE outbox SET
        attempts = attempts + 1, claimed_until = now() + make_interval(secs => $2)
    FROM due WHERE outbox.id = due.id
    RETURNING outbox.*
)
SELECT upload_id, kind, created_at, id, outcome, job, attempts, done, error, due_at, delivered_at,
    given_up_at
FROM claimed ORDER BY id

-- name: settle_events
-- $1 JSON: how attempts went. One that was claimed again since has more attempts; one that was a
-- dead letter in between, and begins anew, is due since then. A target that has it keeps it: defer_job
-- writes it down by itself, and the attempt may not have heard of that.
WITH told AS (
    SELECT * FROM json_to_recordset($1::text::json) AS one (
        id bigint, attempts integer, was_due timestamptz, done text, error text, retry_in_s float8)
)
UPDATE outbox SET
    done = CASE WHEN outbox.done = '[]' THEN told.done ELSE (
        SELECT json_agg(target ORDER BY target)::text FROM (
            SELECT json_array_elements_text(outbox.done::json) AS target
            UNION SELECT json_array_elements_text(told.done::json)) AS either
    ) END,
    error = told.error,
    claimed_until = NULL,
    delivered_at = CASE WHEN told.error IS NULL THEN clock_timestamp() END,
    given_up_at = CASE WHEN told.error IS NOT NULL AND told.retry_in_s IS NULL
        THEN clock_timestamp() END,
    due_at = CASE WHEN told.retry_in_s IS NULL THEN due_at
        ELSE clock_timestamp() + make_interval(secs => told.retry_in_s) END
FROM told
WHERE outbox.id = told.id AND outbox.attempts = told.attempts AND due_at = was_due
  AND delivered_at IS NULL AND given_up_at IS NULL

-- name: settle_unwanted
-- $1 limit, $2 `kind:outcome` with commas between.
WITH unwanted AS (
    SELECT id FROM outbox
    WHERE delivered_at IS NULL AND given_up_at IS NULL
      AND due_at <= now() AND (claimed_until IS NULL OR claimed_until <= now()) AND job IS NULL
      AND kind || ':' || coalesce(outcome, '') = ANY (string_to_array($2, ','))
    ORDER BY due_at, id LIMIT $1
    FOR UPDATE SKIP LOCKED
), settled AS (
    UPDATE outbox SET delivered_at = clock_timestamp(), claimed_until = NULL, error = NULL
    FROM unwanted WHERE outbox.id = unwanted.id
    RETURNING outbox.id
)
SELECT count(*) FROM settled

-- name: retry_event
UPDATE outbox SET given_up_at = NULL, attempts = 0, due_at = now(), claimed_until = NULL
WHERE id = $1 AND given_up_at IS NOT NULL
RETURNING true

-- name: purge_events
WITH old AS (
    SELECT id FROM outbox
    WHERE delivered_at < now() - make_interval(secs => $2)
    ORDER BY delivered_at LIMIT $1
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM outbox USING old WHERE outbox.id = old.id RETURNING outbox.id
)
SELECT count(*) FROM gone

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

-- name: find_stale_nodes
-- $1 seconds of silence.
SELECT id, label, extract(epoch FROM now() - seen_at)::float8 FROM nodes
WHERE seen_at < now() - make_interval(secs => $1)
  AND NOT EXISTS (
      SELECT FROM uploads WHERE tail_node = nodes.id AND state IN ('initiated', 'receiving'))
ORDER BY seen_at, id

-- name: forget_nodes
DELETE FROM nodes
WHERE seen_at < now() - make_interval(secs => $1)
  AND NOT EXISTS (
      SELECT FROM uploads WHERE tail_node = nodes.id AND state IN ('initiated', 'receiving'))
RETURNING id, label, extract(epoch FROM now() - seen_at)::float8

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
