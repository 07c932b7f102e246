-- Times are microseconds since 1970 (UTC), sizes are bytes. Mirrors the Postgres schema; leases are
-- not here, because the one process that owns the file keeps them in memory. Of those that set part
-- numbers aside the row knows that they were granted, and not yet ended (`held`).
--
-- Rows are laid out by `seq`, the order of creation: ids are random, and a table in their order
-- would make every small upload dirty pages of its own, which the log then has to carry.
-- Lists of states are chains of OR: SQLite builds a temporary tree for each IN list, at every write.

CREATE TABLE uploads (
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
    -- CRC-64/NVME of the committed bytes as a signed 64-bit integer: SQLite has no unsigned one.
    -- NULL where nobody tells it, of a direct upload.
    crc64           INTEGER DEFAULT 0,
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
    -- Upload-Concat as received; which partial uploads a final one has is in upload_members.
    concat          TEXT,
    expires_at      INTEGER,
    -- JSON: base64 or null, by algorithm.
    digests         TEXT NOT NULL DEFAULT '{}',
    max_size        INTEGER CHECK (max_size > 0),
    file_id         TEXT,
    request_key     TEXT,
    -- JSON, NULL for an upload without any: see core.jobs.Instructions.
    instructions    TEXT,
    -- When the outcome was decided, and its job enqueued.
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

-- What a crash may leave half-way: a small part of all rows, read at every start.
CREATE INDEX uploads_unfinished ON uploads (seq)
    WHERE held = 1 OR unclean = 1
        OR (freed_at IS NULL AND NOT (state = 'verified' OR state = 'accepted'
                                      OR state = 'rejected'));

-- Of those, what is looked for again and again while the server runs.
CREATE INDEX uploads_to_recover ON uploads (seq)
    WHERE held = 1 OR unclean = 1 OR state = 'completed'
        OR (freed_at IS NULL AND (state = 'deleted' OR state = 'error' OR state = 'canceled'
                                  OR state = 'expired'));

-- What the reaper looks for, and final uploads that wait for partial ones: each a small part, but
-- for the finished.
CREATE INDEX uploads_expiring ON uploads (expires_at)
    WHERE expires_at IS NOT NULL
        AND (state = 'initiated' OR state = 'receiving'
             OR (state = 'verified' AND concat = 'partial'));
CREATE INDEX uploads_finished ON uploads (state_on)
    WHERE (state = 'verified' OR state = 'accepted' OR state = 'rejected')
        AND concat IS NOT 'partial';
CREATE INDEX uploads_ended ON uploads (state_on) WHERE freed_at IS NOT NULL AND unclean = 0;
CREATE INDEX uploads_awaiting ON uploads (seq) WHERE concat <> 'partial' AND state = 'initiated';

-- The promise of one active upload of a file, and of one for each Idempotency-Key.
CREATE UNIQUE INDEX uploads_active ON uploads (file_id)
    WHERE file_id IS NOT NULL
        AND (state = 'initiated' OR state = 'receiving' OR state = 'completed'
             OR state = 'verified' OR state = 'accepted');
CREATE INDEX uploads_by_file ON uploads (file_id, seq) WHERE file_id IS NOT NULL;
CREATE UNIQUE INDEX uploads_requested ON uploads (request_key) WHERE request_key IS NOT NULL;
CREATE INDEX uploads_auto_complete ON uploads (seq)
    WHERE auto_complete = 1 AND (state = 'initiated' OR state = 'receiving');

-- Receipts; of a direct upload all planned parts, an etag where one has arrived.
CREATE TABLE upload_parts (
    upload_id TEXT NOT NULL REFERENCES uploads (id) ON DELETE CASCADE,
    number    INTEGER NOT NULL CHECK (number >= 1),
    start     INTEGER NOT NULL CHECK (start >= 0),
    size      INTEGER NOT NULL CHECK (size >= 0),
    crc64     INTEGER,
    etag      TEXT,
    PRIMARY KEY (upload_id, number)
) WITHOUT ROWID;

-- What final uploads consist of, in order. Of one that is finished the partials may go.
CREATE TABLE upload_members (
    final_seq   INTEGER NOT NULL REFERENCES uploads (seq) ON DELETE CASCADE,
    position    INTEGER NOT NULL CHECK (position >= 1),
    partial_seq INTEGER NOT NULL REFERENCES uploads (seq) ON DELETE CASCADE,
    PRIMARY KEY (final_seq, position)
) WITHOUT ROWID;
CREATE INDEX upload_members_by_partial ON upload_members (partial_seq);

CREATE TABLE status_history (
    id         INTEGER PRIMARY KEY,
    upload_seq INTEGER NOT NULL REFERENCES uploads (seq) ON DELETE CASCADE,
    state      TEXT NOT NULL,
    state_on   INTEGER NOT NULL,
    note       TEXT
);
CREATE INDEX status_history_by_upload ON status_history (upload_seq);

-- History and outbox are written by the database, with the change of state they tell of (P6): they
-- cannot be forgotten, and a commit is one statement for the thread that runs it.
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

-- Events waiting for delivery. No foreign key: an event outlives the row it speaks of. upload_seq,
-- for the order of the events of an upload: an index by random ids would make every write dearer.
CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY,
    upload_id    TEXT NOT NULL,
    kind         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    delivered_at INTEGER,
    upload_seq   INTEGER NOT NULL,
    outcome      TEXT CHECK (outcome = 'success' OR outcome = 'failure'),
    -- JSON, NULL: the server's default.
    job          TEXT,
    attempts     INTEGER NOT NULL DEFAULT 0,
    due_at       INTEGER NOT NULL,
    claimed_until INTEGER NOT NULL DEFAULT 0,
    -- JSON: the targets that have it.
    done         TEXT NOT NULL DEFAULT '[]',
    error        TEXT,
    given_up_at  INTEGER,
    CHECK (delivered_at IS NULL OR given_up_at IS NULL)
);
CREATE INDEX outbox_due ON outbox (due_at, id) WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX outbox_pending_of ON outbox (upload_seq, id)
    WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX outbox_dead ON outbox (id) WHERE given_up_at IS NOT NULL;
CREATE INDEX outbox_delivered ON outbox (delivered_at) WHERE delivered_at IS NOT NULL;

-- One row that readiness writes to.
CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), written_at INTEGER NOT NULL);
INSERT INTO probe (id, written_at) VALUES (1, 0);

-- One row: how many times a server has opened the file. Makes the epochs of each run higher than
-- those of all before it, also of leases that were never written down.
CREATE TABLE run (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL);
INSERT INTO run (id, number) VALUES (1, 0);
