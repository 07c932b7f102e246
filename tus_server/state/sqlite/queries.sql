-- name: insert_upload
INSERT INTO uploads (
    id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, tail_length, tail_crc64, tail_node, tail_generation,
    error_code, error_message, freed_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: update_upload
-- Guarded by the offset the writer started from: a lost race changes no row (P3).
-- id, protocol, created_at, owner and metadata never change.
UPDATE uploads SET
    state = ?, state_on = ?, length = ?, committed_bytes = ?, crc64 = ?, next_part_number = ?,
    tail_length = ?, tail_crc64 = ?, tail_node = ?, tail_generation = ?,
    error_code = ?, error_message = ?, freed_at = ?, steps = ?
WHERE id = ? AND committed_bytes + tail_length = ?

-- name: insert_part
INSERT INTO upload_parts (upload_id, number, start, size, crc64, etag) VALUES (?, ?, ?, ?, ?, ?)

-- name: find_upload
SELECT id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, tail_length, tail_crc64, tail_node, tail_generation,
    error_code, error_message, freed_at
FROM uploads WHERE id = ?

-- name: list_uploads
-- Newest first, from behind the row `before` (NULL: from the newest); states as a JSON array.
SELECT id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, tail_length, tail_crc64, tail_node, tail_generation,
    error_code, error_message, freed_at
FROM uploads
WHERE (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:before IS NULL OR seq < (SELECT seq FROM uploads WHERE id = :before))
ORDER BY seq DESC LIMIT :limit

-- name: find_parts
SELECT number, start, size, crc64, etag FROM upload_parts WHERE upload_id = ? ORDER BY start

-- name: unfinished_work
-- The first condition is that of the index uploads_unfinished, word for word, so that it is used.
SELECT id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, tail_length, tail_crc64, tail_node, tail_generation,
    error_code, error_message, freed_at
FROM uploads
WHERE freed_at IS NULL AND NOT (state = 'verified' OR state = 'accepted'
                                OR state = 'rejected')
  AND (? OR state NOT IN ('initiated', 'receiving'))
  AND seq > coalesce((SELECT seq FROM uploads WHERE id = ?), 0)
ORDER BY seq LIMIT ?

-- name: history
SELECT state, state_on FROM status_history
WHERE upload_seq = (SELECT seq FROM uploads WHERE id = ?) ORDER BY id DESC

-- name: pending_events
SELECT upload_id, kind, created_at FROM outbox WHERE delivered_at IS NULL ORDER BY id LIMIT ?

-- name: probe
-- A write that changes nothing but must reach the disk: readiness.
UPDATE probe SET written_at = ? WHERE id = 1
