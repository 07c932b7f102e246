-- Uploads in stores that number their parts, parked tails, notes in the history.
-- SQLite cannot change a CHECK, so the table is made anew. Foreign keys are off meanwhile, or the
-- rows that refer to it would go with it.

CREATE TABLE uploads_2 (
    seq             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    protocol        TEXT NOT NULL CHECK (protocol = 'tus' OR protocol = 'rufh'),
    state           TEXT NOT NULL CHECK (
                        state = 'verified' OR state = 'receiving' OR state = 'initiated'
                        OR state = 'completed' OR state = 'accepted' OR state = 'rejected'
                        OR state = 'deleted' OR state = 'error' OR state = 'canceled'
                        OR state = 'expired'),
    created_at      INTEGER NOT NULL,
    state_on        INTEGER NOT NULL,
    owner           TEXT,
    metadata        TEXT,
    length          INTEGER CHECK (length >= 0),
    committed_bytes INTEGER NOT NULL DEFAULT 0 CHECK (committed_bytes >= 0),
    -- CRC-64/NVME of the committed bytes as a signed 64-bit integer: SQLite has no unsigned one.
    crc64           INTEGER NOT NULL DEFAULT 0,
    next_part_number INTEGER NOT NULL DEFAULT 1 CHECK (next_part_number >= 1),
    object_key      TEXT,
    multipart_id    TEXT,
    part_size       INTEGER CHECK (part_size > 0),
    tail_length     INTEGER NOT NULL DEFAULT 0 CHECK (tail_length >= 0),
    tail_crc64      INTEGER,
    -- NULL with a tail: it is parked in the object store.
    tail_node       TEXT,
    tail_generation INTEGER,
    generation      INTEGER NOT NULL DEFAULT 0,
    unclean         INTEGER NOT NULL DEFAULT 0 CHECK (unclean = 0 OR unclean = 1),
    held            INTEGER NOT NULL DEFAULT 0 CHECK (held = 0 OR held = 1),
    error_code      TEXT,
    error_message   TEXT,
    freed_at        INTEGER,
    -- JSON: the states the last transition went through, to the current one; see the triggers.
    steps           TEXT NOT NULL DEFAULT '[]',
    CHECK (length IS NULL OR committed_bytes + tail_length <= length),
    CHECK ((tail_length > 0) = (tail_generation IS NOT NULL)),
    CHECK ((tail_length > 0) = (tail_crc64 IS NOT NULL)),
    CHECK (tail_length > 0 OR tail_node IS NULL),
    CHECK ((tail_length = 0 AND length IS NOT NULL AND committed_bytes = length)
           OR NOT (state = 'completed' OR state = 'verified' OR state = 'accepted'
                   OR state = 'rejected')),
    CHECK ((state = 'error') = (error_code IS NOT NULL)),
    CHECK (freed_at IS NULL OR state = 'deleted' OR state = 'error' OR state = 'canceled'
           OR state = 'expired')
);

INSERT INTO uploads_2 (
    seq, id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, tail_length, tail_crc64, tail_node, tail_generation, error_code,
    error_message, freed_at, steps
) SELECT
    seq, id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, tail_length, tail_crc64, tail_node, tail_generation, error_code,
    error_message, freed_at, steps
FROM uploads;
DROP TABLE uploads;
ALTER TABLE uploads_2 RENAME TO uploads;

CREATE INDEX uploads_unfinished ON uploads (seq)
    WHERE held = 1 OR unclean = 1
        OR (freed_at IS NULL AND NOT (state = 'verified' OR state = 'accepted'
                                      OR state = 'rejected'));
CREATE INDEX uploads_to_recover ON uploads (seq)
    WHERE held = 1 OR unclean = 1 OR state = 'completed'
        OR (freed_at IS NULL AND (state = 'deleted' OR state = 'error' OR state = 'canceled'
                                  OR state = 'expired'));

CREATE TRIGGER uploads_created AFTER INSERT ON uploads BEGIN
    INSERT INTO status_history (upload_seq, state, state_on)
    VALUES (NEW.seq, NEW.state, NEW.state_on);
END;
CREATE TRIGGER uploads_stepped AFTER UPDATE OF steps ON uploads WHEN NEW.state <> OLD.state BEGIN
    INSERT INTO status_history (upload_seq, state, state_on)
    SELECT NEW.seq, value, NEW.state_on FROM json_each(NEW.steps) ORDER BY key;
    -- states.EVENTS
    INSERT INTO outbox (upload_id, kind, created_at)
    SELECT NEW.id, value, NEW.state_on FROM json_each(NEW.steps)
    WHERE value = 'verified' OR value = 'deleted' OR value = 'error' OR value = 'canceled'
       OR value = 'expired'
    ORDER BY key;
END;

ALTER TABLE status_history ADD COLUMN note TEXT;

CREATE TABLE run (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL);
INSERT INTO run (id, number) VALUES (1, 0);
