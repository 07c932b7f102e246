-- name: insert_upload
INSERT INTO uploads (
    id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, completed_at, content_type, max_size, file_id, request_key, instructions,
    auto_complete, held
) VALUES (
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?
)

-- name: update_upload
-- Guarded by offset, state and generation the writer started from: a lost race changes no row (P3).
-- Only the end of the lease takes part numbers back.
-- What is not named here never changes.
UPDATE uploads SET
    state = ?, state_on = ?, length = ?, committed_bytes = ?, crc64 = ?,
    next_part_number = max(iif(?, 0, next_part_number), ?),
    object_key = ?, multipart_id = ?, part_size = ?,
    tail_length = ?, tail_crc64 = ?, tail_node = ?, tail_generation = ?, generation = ?,
    unclean = ?, error_code = ?, error_message = ?, freed_at = ?, expires_at = ?, digests = ?,
    completed_at = ?, content_type = ?, held = ?, steps = ?
WHERE id = ? AND committed_bytes + tail_length = ? AND state = ? AND generation = ?

-- name: insert_first_event
-- Of the first step of update_upload, before it, under the same guard: events keep the order of the
-- steps, and the others are the trigger's.
INSERT INTO outbox (upload_id, upload_seq, kind, created_at, due_at)
SELECT id, seq, :kind, :at, :at FROM uploads
WHERE id = :id AND committed_bytes + tail_length = :offset AND state = :was
  AND generation = :generation

-- name: mark_claimed
-- Gives the row after it: what needs no lease may have changed it since the claim looked at it.
-- generation: NULL: the holder before had let go.
UPDATE uploads SET
    next_part_number = :next_part_number,
    generation = coalesce(:generation, generation),
    unclean = unclean OR :generation IS NOT NULL,
    held = :held
WHERE id = :upload_id
RETURNING id, protocol, concat, state, created_at, state_on, owner, metadata, length,
    committed_bytes, crc64, next_part_number, object_key, multipart_id, part_size, tail_length,
    tail_crc64, tail_node, tail_generation, generation, unclean, error_code, error_message,
    freed_at, expires_at, digests, max_size, file_id, request_key, instructions, completed_at,
    content_type, auto_complete

-- name: mark_released
UPDATE uploads SET
    held = 0,
    unclean = unclean OR :unclean,
    next_part_number = coalesce(:next_part_number, next_part_number)
WHERE id = :id

-- name: add_note
INSERT INTO status_history (upload_seq, state, state_on, note)
SELECT seq, state, :at, :note FROM uploads WHERE id = :id

-- name: note_last_step
UPDATE status_history SET note = :note WHERE id = (
    SELECT max(id) FROM status_history
    WHERE upload_seq = (SELECT seq FROM uploads WHERE id = :id)
)

-- name: insert_part
INSERT INTO upload_parts (upload_id, number, start, size, crc64, etag) VALUES (?, ?, ?, ?, ?, ?)

-- name: insert_member
-- Of a partial that is not there the NULL is refused.
INSERT INTO upload_members (final_seq, position, partial_seq) VALUES (
    (SELECT seq FROM uploads WHERE id = ?), ?, (SELECT seq FROM uploads WHERE id = ?)
)

-- name: find_upload
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads WHERE id = ?

-- name: list_uploads
-- Newest first, from behind the row `before` (NULL: from the newest); states as a JSON array.
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:before IS NULL OR seq < (SELECT seq FROM uploads WHERE id = :before))
ORDER BY seq DESC LIMIT :limit

-- name: find_uploads
-- ids as a JSON array.
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads WHERE id IN (SELECT value FROM json_each(?))

-- name: find_partials
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM upload_members JOIN uploads ON seq = partial_seq
WHERE final_seq = (SELECT seq FROM uploads WHERE id = ?) ORDER BY position

-- name: find_expired
-- The first condition is that of the index uploads_expiring. Pages go by the index: the row `after`
-- has ended meanwhile, and its expires_at stays what it was.
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE (state = 'initiated' OR state = 'receiving' OR (state = 'verified' AND concat = 'partial'))
  AND expires_at <= :now
  AND (expires_at, seq) > (
      coalesce((SELECT expires_at FROM uploads WHERE id = :after), 0),
      coalesce((SELECT seq FROM uploads WHERE id = :after), 0))
  AND NOT (state = 'verified' AND EXISTS (
      SELECT 1 FROM upload_members JOIN uploads AS finals ON finals.seq = final_seq
      WHERE partial_seq = uploads.seq AND finals.state = 'initiated'))
ORDER BY expires_at, seq LIMIT :limit

-- name: find_kept_longer
-- The first two conditions are those of the index uploads_finished. Pages go by the index: the row
-- `after` is deleted meanwhile, but its history tells when it was finished.
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE (state = 'verified' OR state = 'accepted' OR state = 'rejected')
  AND concat IS NOT 'partial'
  AND state_on < :finished_before
  AND (state_on, seq) > (
      coalesce((
          SELECT max(passed.state_on) FROM status_history AS passed
          WHERE upload_seq = (SELECT seq FROM uploads WHERE id = :after)
            AND passed.state IN ('verified', 'accepted', 'rejected')), 0),
      coalesce((SELECT seq FROM uploads WHERE id = :after), 0))
ORDER BY state_on, seq LIMIT :limit

-- name: ready_finals
-- The first two conditions are those of the index uploads_awaiting. A lost partial settles it,
-- whatever becomes of the others.
SELECT id FROM uploads
WHERE concat <> 'partial' AND state = 'initiated'
  AND (:of IS NULL OR seq IN (
      SELECT final_seq FROM upload_members
      WHERE partial_seq = (SELECT seq FROM uploads WHERE id = :of)))
  AND seq > coalesce((SELECT seq FROM uploads WHERE id = :after), 0)
  AND (NOT EXISTS (
           SELECT 1 FROM upload_members JOIN uploads AS partials ON partials.seq = partial_seq
           WHERE final_seq = uploads.seq
             AND partials.state IN ('initiated', 'receiving', 'completed'))
       OR EXISTS (
           SELECT 1 FROM upload_members JOIN uploads AS partials ON partials.seq = partial_seq
           WHERE final_seq = uploads.seq
             AND partials.state IN ('deleted', 'error', 'canceled', 'expired')))
ORDER BY seq LIMIT :limit

-- name: is_needed
SELECT EXISTS (
    SELECT 1 FROM upload_members JOIN uploads AS finals ON finals.seq = final_seq
    WHERE partial_seq = (SELECT seq FROM uploads WHERE id = ?)
      AND finals.state IN ('initiated', 'completed'))

-- name: let_partials_expire
UPDATE uploads SET expires_at = :at
WHERE seq IN (
        SELECT partial_seq FROM upload_members
        WHERE final_seq = (SELECT seq FROM uploads WHERE id = :id))
  AND state NOT IN ('deleted', 'error', 'canceled', 'expired')
  AND (expires_at IS NULL OR expires_at > :at)
RETURNING id

-- name: purge
-- The first two conditions are those of the index uploads_ended. held: ids that are held, as a JSON
-- array.
DELETE FROM uploads WHERE seq IN (
    SELECT ended.seq FROM uploads AS ended
    WHERE ended.freed_at IS NOT NULL AND ended.unclean = 0
      AND ended.state_on < :ended_before AND ended.held = 0
      AND ended.id NOT IN (SELECT value FROM json_each(:held))
      AND NOT EXISTS (
          SELECT 1 FROM upload_members JOIN uploads AS finals ON finals.seq = final_seq
          WHERE partial_seq = ended.seq AND finals.state = 'initiated')
    ORDER BY ended.state_on, ended.seq LIMIT :limit
)
RETURNING id

-- name: find_parts
SELECT number, start, size, crc64, etag FROM upload_parts WHERE upload_id = ? ORDER BY start

-- name: unfinished_work
-- The first condition is that of the index uploads_unfinished, word for word, so that it is used.
-- freed_before: what is unclean and was freed before then is looked at a second time.
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE (held = 1 OR unclean = 1
       OR (freed_at IS NULL AND NOT (state = 'verified' OR state = 'accepted'
                                     OR state = 'rejected')))
  AND (freed_at IS NULL OR unclean = 0 OR freed_at <= :freed_before)
  AND seq > coalesce((SELECT seq FROM uploads WHERE id = :after), 0)
ORDER BY seq

-- name: work_to_recover
-- The same without uploads that only wait for bytes, by the index uploads_to_recover.
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE (held = 1 OR unclean = 1 OR state = 'completed'
       OR (freed_at IS NULL AND (state = 'deleted' OR state = 'error' OR state = 'canceled'
                                 OR state = 'expired')))
  AND (freed_at IS NULL OR unclean = 0 OR freed_at <= :freed_before)
  AND seq > coalesce((SELECT seq FROM uploads WHERE id = :after), 0)
ORDER BY seq

-- name: held_uploads
SELECT id FROM uploads WHERE held = 1

-- name: begin_run
UPDATE run SET number = number + 1 WHERE id = 1 RETURNING number

-- name: forget_claims
-- Whoever has claimed events in an earlier run has ended: they are due now, not when that is over.
UPDATE outbox SET claimed_until = 0
WHERE delivered_at IS NULL AND given_up_at IS NULL AND claimed_until <> 0

-- name: history
SELECT state, state_on, note FROM status_history
WHERE upload_seq = (SELECT seq FROM uploads WHERE id = ?) ORDER BY id DESC

-- name: insert_planned_parts
-- The parts of a direct upload, as core.direct cuts it.
WITH RECURSIVE planned (number, start, length, part_size) AS (
    SELECT 1, 0, length, part_size FROM uploads WHERE id = :id
    UNION ALL
    SELECT number + 1, start + part_size, length, part_size FROM planned
    WHERE start + part_size < length
)
INSERT INTO upload_parts (upload_id, number, start, size)
SELECT :id, number, start, min(part_size, length - start) FROM planned

-- name: find_some_parts
-- numbers as a JSON array.
SELECT number, size, crc64, etag FROM upload_parts
WHERE upload_id = :id AND number IN (SELECT value FROM json_each(:numbers))

-- name: record_part
UPDATE upload_parts SET crc64 = ?, etag = ? WHERE upload_id = ? AND number = ?

-- name: move_direct
-- moved: bytes that are stored more than before, or fewer. A commit from the row before this one
-- loses by the generation. steps: for the triggers.
UPDATE uploads SET
    committed_bytes = committed_bytes + :moved,
    generation = generation + 1,
    expires_at = CASE WHEN expires_at < :expires_at THEN :expires_at ELSE expires_at END,
    state_on = iif(:begins AND state = 'initiated', :now, state_on),
    steps = '["receiving"]',
    state = iif(:begins, 'receiving', state)
WHERE id = :id
RETURNING id, protocol, concat, state, created_at, state_on, owner, metadata, length,
    committed_bytes, crc64, next_part_number, object_key, multipart_id, part_size, tail_length,
    tail_crc64, tail_node, tail_generation, generation, unclean, error_code, error_message,
    freed_at, expires_at, digests, max_size, file_id, request_key, instructions, completed_at,
    content_type, auto_complete

-- name: insert_early_event
INSERT INTO outbox (upload_id, upload_seq, kind, created_at, due_at)
SELECT id, seq, :kind, state_on, state_on FROM uploads WHERE id = :id

-- name: find_by_file_id
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE file_id = :file_id
  AND (:before IS NULL OR seq < (SELECT seq FROM uploads WHERE id = :before))
ORDER BY seq DESC LIMIT :limit

-- name: find_active
-- The condition is that of the index uploads_active.
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE file_id = ?
  AND (state = 'initiated' OR state = 'receiving' OR state = 'completed'
       OR state = 'verified' OR state = 'accepted')

-- name: find_requested
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads WHERE request_key = ?

-- name: find_auto_complete
-- The first condition is that of the index uploads_auto_complete.
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, file_id, request_key, instructions, completed_at, content_type,
    auto_complete
FROM uploads
WHERE auto_complete = 1 AND (state = 'initiated' OR state = 'receiving')
  AND (protocol = 'single' OR protocol = 'multipart')
  AND seq > coalesce((SELECT seq FROM uploads WHERE id = :after), 0)
ORDER BY seq LIMIT :limit

-- name: histories
-- ids as a JSON array.
SELECT uploads.id, status_history.state, status_history.state_on, note
FROM status_history JOIN uploads ON upload_seq = seq
WHERE uploads.id IN (SELECT value FROM json_each(?)) ORDER BY status_history.id DESC

-- name: pending_events
SELECT upload_id, kind, created_at, id, outcome, job, attempts, done, error, due_at, delivered_at,
    given_up_at
FROM outbox WHERE delivered_at IS NULL AND given_up_at IS NULL ORDER BY id LIMIT ?

-- name: list_events
-- One search of three is made, so that the few dead letters are found by their index.
SELECT upload_id, kind, created_at, id, outcome, job, attempts, done, error, due_at, delivered_at,
    given_up_at
FROM (
    SELECT * FROM (
        SELECT * FROM outbox
        WHERE :kind = 'dead' AND given_up_at IS NOT NULL
          AND (:before IS NULL OR id < :before) AND (:upload_id IS NULL OR upload_id = :upload_id)
        ORDER BY id DESC LIMIT :limit)
    UNION ALL
    SELECT * FROM (
        SELECT * FROM outbox
        WHERE :kind = 'pending' AND delivered_at IS NULL AND given_up_at IS NULL
          AND (:before IS NULL OR id < :before) AND (:upload_id IS NULL OR upload_id = :upload_id)
        ORDER BY id DESC LIMIT :limit)
    UNION ALL
    SELECT * FROM (
        SELECT * FROM outbox
        WHERE :kind = 'delivered' AND delivered_at IS NOT NULL
          AND (:before IS NULL OR id < :before) AND (:upload_id IS NULL OR upload_id = :upload_id)
        ORDER BY id DESC LIMIT :limit)
)
ORDER BY id DESC LIMIT :limit

-- name: find_event
SELECT upload_id, kind, created_at, id, outcome, job, attempts, done, error, due_at, delivered_at,
    given_up_at
FROM outbox WHERE id = ?

-- name: claim_events
-- The events of an upload come one after the other. upload_seq finds them, and may be used again by
-- another upload once rows were removed.
UPDATE outbox SET attempts = attempts + 1, claimed_until = :until
WHERE id IN (
    SELECT due.id FROM outbox AS due
    WHERE due.delivered_at IS NULL AND due.given_up_at IS NULL
      AND due.due_at <= :now AND due.claimed_until <= :now
      AND NOT EXISTS (
          SELECT 1 FROM outbox AS earlier
          WHERE earlier.upload_seq = due.upload_seq AND earlier.id < due.id
            AND earlier.upload_id = due.upload_id
            AND earlier.delivered_at IS NULL AND earlier.given_up_at IS NULL)
    ORDER BY due.due_at, due.id LIMIT :limit)
RETURNING upload_id, kind, created_at, id, outcome, job, attempts, done, error, due_at, delivered_at,
    given_up_at

-- name: settle_event
-- One that was claimed again since has more attempts; one that was a dead letter in between, and
-- begins anew, is due since then. A target that has it keeps it.
UPDATE outbox SET
    done = iif(done = '[]', :done, (
        SELECT json_group_array(value) FROM (
            SELECT value FROM json_each(done) UNION SELECT value FROM json_each(:done)))),
    error = :error,
    claimed_until = 0,
    delivered_at = iif(:error IS NULL, :now, NULL),
    given_up_at = iif(:error IS NOT NULL AND :due_at IS NULL, :now, NULL),
    due_at = coalesce(:due_at, due_at)
WHERE id = :id AND attempts = :attempts AND due_at = :was_due
  AND delivered_at IS NULL AND given_up_at IS NULL

-- name: settle_unwanted
-- unwanted: a JSON array of `kind:outcome`.
UPDATE outbox SET delivered_at = :now, claimed_until = 0, error = NULL
WHERE id IN (
    SELECT id FROM outbox
    WHERE delivered_at IS NULL AND given_up_at IS NULL
      AND due_at <= :now AND claimed_until <= :now AND job IS NULL
      AND kind || ':' || coalesce(outcome, '') IN (SELECT value FROM json_each(:unwanted))
    ORDER BY due_at, id LIMIT :limit)

-- name: retry_event
UPDATE outbox SET given_up_at = NULL, attempts = 0, due_at = :now, claimed_until = 0
WHERE id = :id AND given_up_at IS NOT NULL

-- name: purge_events
-- But the newest of all: SQLite goes on counting behind it, and an id is given once.
DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox
    WHERE delivered_at < :before AND id < (SELECT max(id) FROM outbox)
    ORDER BY delivered_at LIMIT :limit)

-- name: probe
-- A write that changes nothing but must reach the disk: readiness.
UPDATE probe SET written_at = ? WHERE id = 1
