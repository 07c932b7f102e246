-- Direct uploads, instructions of the application, outcomes, and an outbox that is delivered.
-- SQLite cannot change a CHECK, nor a NOT NULL, so tables are made anew; see 0002.sql.

CREATE TABLE uploads_4 (
    seq             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    protocol        TEXT NOT NULL CHECK (protocol = 'tus' OR protocol = 'rufh'
                                         OR protocol = 'multipart' OR protocol = 'single'),
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
    crc64           INTEGER DEFAULT 0,
    next_part_number INTEGER NOT NULL DEFAULT 1 CHECK (next_part_number >= 1),
    object_key      TEXT,
    multipart_id    TEXT,
    part_size       INTEGER CHECK (part_size > 0),
    tail_length     INTEGER NOT NULL DEFAULT 0 CHECK (tail_length >= 0),
    tail_crc64      INTEGER,
    tail_node       TEXT,
    tail_generation INTEGER,
    generation      INTEGER NOT NULL DEFAULT 0,
    unclean         INTEGER NOT NULL DEFAULT 0 CHECK (unclean = 0 OR unclean = 1),
    held            INTEGER NOT NULL DEFAULT 0 CHECK (held = 0 OR held = 1),
    error_code      TEXT,
    error_message   TEXT,
    freed_at        INTEGER,
    steps           TEXT NOT NULL DEFAULT '[]',
    concat          TEXT,
    expires_at      INTEGER,
    digests         TEXT NOT NULL DEFAULT '{}',
    max_size        INTEGER CHECK (max_size > 0),
    file_id         TEXT,
    request_key     TEXT,
    instructions    TEXT,
    completed_at    INTEGER,
    content_type    TEXT,
    auto_complete   INTEGER NOT NULL DEFAULT 0 CHECK (auto_complete = 0 OR auto_complete = 1),
    CHECK (crc64 IS NOT NULL OR protocol = 'multipart' OR protocol = 'single'),
    CHECK (part_size IS NOT NULL AND length IS NOT NULL AND tail_length = 0
           OR NOT (protocol = 'multipart' OR protocol = 'single')),
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

INSERT INTO uploads_4 (
    seq, id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, held, error_code, error_message, freed_at, steps, concat,
    expires_at, digests, max_size
) SELECT
    seq, id, protocol, state, created_at, state_on, owner, metadata, length, committed_bytes, crc64,
    next_part_number, object_key, multipart_id, part_size, tail_length, tail_crc64, tail_node,
    tail_generation, generation, unclean, held, error_code, error_message, freed_at, steps, concat,
    expires_at, digests, max_size
FROM uploads;
DROP TABLE uploads;
ALTER TABLE uploads_4 RENAME TO uploads;

CREATE INDEX uploads_unfinished ON uploads (seq)
    WHERE held = 1 OR unclean = 1
        OR (freed_at IS NULL AND NOT (state = 'verified' OR state = 'accepted'
                                      OR state = 'rejected'));

CREATE INDEX uploads_to_recover ON uploads (seq)
    WHERE held = 1 OR unclean = 1 OR state = 'completed'
        OR (freed_at IS NULL AND (state = 'deleted' OR state = 'error' OR state = 'canceled'
                                  OR state = 'expired'));

CREATE INDEX uploads_expiring ON uploads (expires_at)
    WHERE expires_at IS NOT NULL
        AND (state = 'initiated' OR state = 'receiving'
             OR (state = 'verified' AND concat = 'partial'));
CREATE INDEX uploads_finished ON uploads (state_on)
    WHERE (state = 'verified' OR state = 'accepted' OR state = 'rejected')
        AND concat IS NOT 'partial';
CREATE INDEX uploads_ended ON uploads (state_on) WHERE freed_at IS NOT NULL AND unclean = 0;
CREATE INDEX uploads_awaiting ON uploads (seq) WHERE concat <> 'partial' AND state = 'initiated';

CREATE UNIQUE INDEX uploads_active ON uploads (file_id)
    WHERE file_id IS NOT NULL
        AND (state = 'initiated' OR state = 'receiving' OR state = 'completed'
             OR state = 'verified' OR state = 'accepted');
CREATE INDEX uploads_by_file ON uploads (file_id, seq) WHERE file_id IS NOT NULL;
CREATE UNIQUE INDEX uploads_requested ON uploads (request_key) WHERE request_key IS NOT NULL;
CREATE INDEX uploads_auto_complete ON uploads (seq)
    WHERE auto_complete = 1 AND (state = 'initiated' OR state = 'receiving');

CREATE TABLE upload_parts_4 (
    upload_id TEXT NOT NULL REFERENCES uploads (id) ON DELETE CASCADE,
    number    INTEGER NOT NULL CHECK (number >= 1),
    start     INTEGER NOT NULL CHECK (start >= 0),
    size      INTEGER NOT NULL CHECK (size >= 0),
    crc64     INTEGER,
    etag      TEXT,
    PRIMARY KEY (upload_id, number)
) WITHOUT ROWID;

INSERT INTO upload_parts_4 SELECT upload_id, number, start, size, crc64, etag FROM upload_parts;
DROP TABLE upload_parts;
ALTER TABLE upload_parts_4 RENAME TO upload_parts;

CREATE TABLE outbox_4 (
    id           INTEGER PRIMARY KEY,
    upload_id    TEXT NOT NULL,
    kind         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    delivered_at INTEGER,
    upload_seq   INTEGER NOT NULL,
    outcome      TEXT CHECK (outcome = 'success' OR outcome = 'failure'),
    job          TEXT,
    attempts     INTEGER NOT NULL DEFAULT 0,
    due_at       INTEGER NOT NULL,
    claimed_until INTEGER NOT NULL DEFAULT 0,
    done         TEXT NOT NULL DEFAULT '[]',
    error        TEXT,
    given_up_at  INTEGER,
    CHECK (delivered_at IS NULL OR given_up_at IS NULL)
);

-- Of an upload whose row is gone any number will do that no other has.
INSERT INTO outbox_4 (id, upload_id, upload_seq, kind, created_at, delivered_at, due_at)
SELECT outbox.id, upload_id, coalesce(uploads.seq, -min(outbox.id) OVER (PARTITION BY upload_id)),
    kind, outbox.created_at, delivered_at, outbox.created_at
FROM outbox LEFT JOIN uploads ON uploads.id = upload_id;
DROP TABLE outbox;
ALTER TABLE outbox_4 RENAME TO outbox;
CREATE INDEX outbox_due ON outbox (due_at, id) WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX outbox_pending_of ON outbox (upload_seq, id)
    WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX outbox_dead ON outbox (id) WHERE given_up_at IS NOT NULL;
CREATE INDEX outbox_delivered ON outbox (delivered_at) WHERE delivered_at IS NOT NULL;

CREATE TRIGGER uploads_created AFTER INSERT ON uploads BEGIN
    INSERT INTO status_history (upload_seq, state, state_on)
    VALUES (NEW.seq, NEW.state, NEW.state_on);
END;
CREATE TRIGGER uploads_stepped AFTER UPDATE OF steps ON uploads WHEN NEW.state <> OLD.state BEGIN
    INSERT INTO status_history (upload_seq, state, state_on)
    SELECT NEW.seq, value, NEW.state_on FROM json_each(NEW.steps) ORDER BY key;
END;
-- states.EVENTS; a partial upload is no event (tus 1.0.0, Concatenation; T100). The last step is the
-- one that decides the outcome, if any does: core.jobs.outcome_of. A way that ends with one of these
-- two has no event, and is spared the search: that is most commits.
CREATE TRIGGER uploads_told AFTER UPDATE OF steps ON uploads
WHEN NEW.state <> OLD.state AND NOT (NEW.state = 'receiving' OR NEW.state = 'completed')
    AND NEW.concat IS NOT 'partial'
BEGIN
    INSERT INTO outbox (upload_id, upload_seq, kind, created_at, due_at, outcome, job)
    SELECT NEW.id, NEW.seq, value, NEW.state_on, NEW.state_on,
        CASE WHEN value = NEW.state AND NEW.completed_at IS NOT NULL AND OLD.completed_at IS NULL
            THEN iif(value = 'verified' OR value = 'accepted', 'success', 'failure') END,
        CASE WHEN value = NEW.state AND NEW.completed_at IS NOT NULL AND OLD.completed_at IS NULL
            THEN json_extract(NEW.instructions,
                iif(value = 'verified' OR value = 'accepted', '$.success_job', '$.failure_job')) END
    FROM json_each(NEW.steps)
    WHERE value = 'verified' OR value = 'deleted' OR value = 'error' OR value = 'canceled'
       OR value = 'expired' OR value = 'accepted' OR value = 'rejected'
    ORDER BY key;
END;

-- The outcome of what ended before is decided, and no job is due for it.
UPDATE uploads SET completed_at = state_on
WHERE concat IS NOT 'partial'
  AND (state = 'verified' OR state = 'accepted' OR state = 'rejected' OR state = 'deleted'
       OR state = 'error' OR state = 'canceled' OR state = 'expired');
