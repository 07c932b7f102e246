-- name: insert_upload
INSERT INTO uploads (
    id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, error_code, error_message, freed_at, held
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: update_upload
-- Guarded by the offset the writer started from: a lost race changes no row (P3).
-- Only the end of the lease takes part numbers back.
-- id, protocol, created_at, owner and metadata never change.
UPDATE uploads SET
    state = ?, state_on = ?, length = ?, committed_bytes = ?, crc64 = ?,
    next_part_number = max(iif(?, 0, next_part_number), ?),
    object_key = ?, multipart_id = ?, part_size = ?,
    tail_length = ?, tail_crc64 = ?, tail_node = ?, tail_generation = ?, generation = ?,
    unclean = ?, error_code = ?, error_message = ?, freed_at = ?, held = ?, steps = ?
WHERE id = ? AND committed_bytes + tail_length = ?

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

-- name: find_upload
SELECT id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, error_code, error_message, freed_at
FROM uploads WHERE id = ?

-- name: list_uploads
-- Newest first, from behind the row `before` (NULL: from the newest); states as a JSON array.
SELECT id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, error_code, error_message, freed_at
FROM uploads
WHERE (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:before IS NULL OR seq < (SELECT seq FROM uploads WHERE id = :before))
ORDER BY seq DESC LIMIT :limit

-- name: find_parts
SELECT number, start, size, crc64, etag FROM upload_parts WHERE upload_id = ? ORDER BY start

-- name: unfinished_work
-- The first condition is that of the index uploads_unfinished, word for word, so that it is used.
-- freed_before: what is unclean and was freed before then is looked at a second time.
SELECT id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, error_code, error_message, freed_at
FROM uploads
WHERE (held = 1 OR unclean = 1
       OR (freed_at IS NULL AND NOT (state = 'verified' OR state = 'accepted'
                                     OR state = 'rejected')))
  AND (freed_at IS NULL OR unclean = 0 OR freed_at <= :freed_before)
  AND seq > coalesce((SELECT seq FROM uploads WHERE id = :after), 0)
ORDER BY seq

-- name: work_to_recover
-- The same without uploads that only wait for bytes, by the index uploads_to_recover.
SELECT id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, error_code, error_message, freed_at
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
