-- name: insert_upload
INSERT INTO uploads (
    id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size, held
) VALUES (
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
)

-- name: update_upload
-- Guarded by the offset and the state the writer started from: a lost race changes no row (P3).
-- Only the end of the lease takes part numbers back.
-- id, protocol, concat, created_at, owner, metadata and max_size never change.
UPDATE uploads SET
    state = ?, state_on = ?, length = ?, committed_bytes = ?, crc64 = ?,
    next_part_number = max(iif(?, 0, next_part_number), ?),
    object_key = ?, multipart_id = ?, part_size = ?,
    tail_length = ?, tail_crc64 = ?, tail_node = ?, tail_generation = ?, generation = ?,
    unclean = ?, error_code = ?, error_message = ?, freed_at = ?, expires_at = ?, digests = ?,
    held = ?, steps = ?
WHERE id = ? AND committed_bytes + tail_length = ? AND state = ?

-- name: mark_claimed
UPDATE uploads SET next_part_number = ?, generation = ?, unclean = ?, held = ? WHERE id = ?

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
    expires_at, digests, max_size
FROM uploads WHERE id = ?

-- name: list_uploads
-- Newest first, from behind the row `before` (NULL: from the newest); states as a JSON array.
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size
FROM uploads
WHERE (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:before IS NULL OR seq < (SELECT seq FROM uploads WHERE id = :before))
ORDER BY seq DESC LIMIT :limit

-- name: find_uploads
-- ids as a JSON array.
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size
FROM uploads WHERE id IN (SELECT value FROM json_each(?))

-- name: find_partials
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size
FROM upload_members JOIN uploads ON seq = partial_seq
WHERE final_seq = (SELECT seq FROM uploads WHERE id = ?) ORDER BY position

-- name: find_expired
-- The first condition is that of the index uploads_expiring. Pages go by the index: the row `after`
-- has ended meanwhile, and its expires_at stays what it was.
SELECT id, protocol, concat, state, created_at, state_on, owner, metadata, length, committed_bytes,
    crc64, next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64,
    tail_node, tail_generation, generation, unclean, error_code, error_message, freed_at,
    expires_at, digests, max_size
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
    expires_at, digests, max_size
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
    expires_at, digests, max_size
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
    expires_at, digests, max_size
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

-- name: history
SELECT state, state_on, note FROM status_history
WHERE upload_seq = (SELECT seq FROM uploads WHERE id = ?) ORDER BY id DESC

-- name: pending_events
SELECT upload_id, kind, created_at FROM outbox WHERE delivered_at IS NULL ORDER BY id LIMIT ?

-- name: probe
-- A write that changes nothing but must reach the disk: readiness.
UPDATE probe SET written_at = ? WHERE id = 1
