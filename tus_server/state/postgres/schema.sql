-- The schema as it is; numbered migrations get there, and a test compares the two.
-- Sizes are bytes. Whatever decides over leases and nodes is told by the clock of the database;
-- created_at, state_on and freed_at are what the server that wrote them says.

CREATE TABLE schema_version (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE uploads (
    seq              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id               text COLLATE "C" NOT NULL UNIQUE,
    protocol         text NOT NULL CHECK (protocol IN ('tus', 'rufh', 'single', 'multipart')),
    state            text NOT NULL CHECK (state IN (
                         'initiated', 'receiving', 'completed', 'verified', 'accepted', 'rejected',
                         'deleted', 'error', 'canceled', 'expired')),
    created_at       timestamptz NOT NULL,
    state_on         timestamptz NOT NULL,
    owner            text,
    metadata         text,
    length           bigint CHECK (length >= 0),
    committed_bytes  bigint NOT NULL CHECK (committed_bytes >= 0),
    -- CRC-64/NVME of the committed bytes as a signed integer, as in every column of this kind. NULL
    -- where nobody tells it, of a direct upload.
    crc64            bigint,
    next_part_number integer NOT NULL CHECK (next_part_number >= 1),
    object_key       text,
    multipart_id     text,
    part_size        bigint CHECK (part_size > 0),
    tail_length      bigint NOT NULL CHECK (tail_length >= 0),
    tail_crc64       bigint,
    -- NULL with a tail: it is parked in the object store.
    tail_node        text,
    tail_generation  bigint,
    generation       bigint NOT NULL,
    unclean          boolean NOT NULL,
    error_code       text,
    error_message    text,
    freed_at         timestamptz,
    lease_epoch      bigint NOT NULL,
    -- '<node id>/<process>'; NULL: nobody has a lease.
    lease_holder     text,
    lease_until      timestamptz,
    release_wanted   boolean NOT NULL DEFAULT false,
    -- What recovery has to look at: few rows, however many uploads were left unfinished. One column,
    -- so that an update which leaves it as it is can be HOT: renewals, and commits under a lease.
    to_recover       boolean NOT NULL GENERATED ALWAYS AS (
                         unclean OR lease_holder IS NOT NULL OR state = 'completed'
                         OR (freed_at IS NULL
                             AND state IN ('deleted', 'error', 'canceled', 'expired'))
                     ) STORED,
    -- Upload-Concat as received; which partial uploads a final one has is in upload_members.
    concat           text,
    expires_at       timestamptz,
    -- JSON: base64 or null, by algorithm.
    digests          text NOT NULL DEFAULT '{}',
    max_size         bigint CHECK (max_size > 0),
    file_id          text,
    request_key      text,
    -- JSON, NULL for an upload without any: see core.jobs.Instructions.
    instructions     text,
    -- When the outcome was decided, and its job enqueued.
    completed_at     timestamptz,
    content_type     text,
    auto_complete    boolean NOT NULL DEFAULT false,
    CONSTRAINT uploads_crc64_told CHECK (crc64 IS NOT NULL OR protocol IN ('single', 'multipart')),
    CONSTRAINT uploads_direct_planned CHECK (
        protocol NOT IN ('single', 'multipart')
        OR (part_size IS NOT NULL AND length IS NOT NULL AND tail_length = 0)),
    CHECK (committed_bytes + tail_length <= length),
    CHECK ((tail_length > 0) = (tail_generation IS NOT NULL)),
    CHECK ((tail_length > 0) = (tail_crc64 IS NOT NULL)),
    CHECK (tail_length > 0 OR tail_node IS NULL),
    CHECK (state NOT IN ('completed', 'verified', 'accepted', 'rejected')
           OR (tail_length = 0 AND length IS NOT NULL AND committed_bytes = length)),
    CHECK ((state = 'error') = (error_code IS NOT NULL)),
    CHECK (freed_at IS NULL OR state IN ('deleted', 'error', 'canceled', 'expired')),
    CHECK ((lease_holder IS NULL) = (lease_until IS NULL))
) WITH (fillfactor = 75);  -- room on the page for the updates that follow each insert

CREATE INDEX uploads_to_recover ON uploads (seq) WHERE to_recover;

-- What the reaper looks for, and final uploads that wait for partial ones. A change of state is
-- never HOT with them, but there are few of an upload; generated columns, which would leave it so,
-- make every commit dearer.
CREATE INDEX uploads_expiring ON uploads (expires_at, seq)
    WHERE expires_at IS NOT NULL
        AND (state IN ('initiated', 'receiving') OR (state = 'verified' AND concat = 'partial'));
CREATE INDEX uploads_finished ON uploads (state_on, seq)
    WHERE state IN ('verified', 'accepted', 'rejected') AND concat IS DISTINCT FROM 'partial';
CREATE INDEX uploads_ended ON uploads (state_on, seq) WHERE freed_at IS NOT NULL AND NOT unclean;
CREATE INDEX uploads_awaiting ON uploads (seq) WHERE state = 'initiated' AND concat <> 'partial';
CREATE INDEX uploads_by_tail ON uploads (tail_node) WHERE tail_node IS NOT NULL;

-- The promise of one active upload of a file, and of one for each Idempotency-Key.
CREATE UNIQUE INDEX uploads_active ON uploads (file_id)
    WHERE file_id IS NOT NULL
        AND state IN ('initiated', 'receiving', 'completed', 'verified', 'accepted');
CREATE INDEX uploads_by_file ON uploads (file_id, seq) WHERE file_id IS NOT NULL;
CREATE UNIQUE INDEX uploads_requested ON uploads (request_key) WHERE request_key IS NOT NULL;
CREATE INDEX uploads_auto_complete ON uploads (seq)
    WHERE state IN ('initiated', 'receiving') AND auto_complete;

-- What final uploads consist of, in order. Of one that is finished the partials may go.
CREATE TABLE upload_members (
    final_seq   bigint NOT NULL REFERENCES uploads (seq) ON DELETE CASCADE,
    position    integer NOT NULL CHECK (position >= 1),
    partial_seq bigint NOT NULL REFERENCES uploads (seq) ON DELETE CASCADE,
    PRIMARY KEY (final_seq, position)
);
CREATE INDEX upload_members_by_partial ON upload_members (partial_seq);

-- Receipts; of a direct upload all planned parts, an etag where one has arrived.
CREATE TABLE upload_parts (
    upload_seq bigint NOT NULL REFERENCES uploads (seq) ON DELETE CASCADE,
    number     integer NOT NULL CHECK (number >= 1),
    start      bigint NOT NULL CHECK (start >= 0),
    size       bigint NOT NULL CHECK (size >= 0),
    crc64      bigint,
    etag       text,
    PRIMARY KEY (upload_seq, number)
);

CREATE TABLE status_history (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    upload_seq bigint NOT NULL REFERENCES uploads (seq) ON DELETE CASCADE,
    state      text NOT NULL,
    state_on   timestamptz NOT NULL,
    note       text
);
CREATE INDEX status_history_by_upload ON status_history (upload_seq);

-- Events waiting for delivery. No foreign key: an event outlives the row it speaks of. upload_seq, for
-- the indexes: entries in the order of creation cost less than those of random ids.
CREATE TABLE outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    upload_id    text COLLATE "C" NOT NULL,
    kind         text NOT NULL,
    created_at   timestamptz NOT NULL,
    delivered_at timestamptz,
    outcome      text CHECK (outcome IN ('success', 'failure')),
    -- JSON, NULL: the server's default.
    job          text,
    attempts     integer NOT NULL DEFAULT 0,
    due_at       timestamptz NOT NULL DEFAULT now(),
    claimed_until timestamptz,
    -- JSON: the targets that have it.
    done         text NOT NULL DEFAULT '[]',
    error        text,
    given_up_at  timestamptz,
    upload_seq   bigint NOT NULL,
    CONSTRAINT outbox_ended_once CHECK (delivered_at IS NULL OR given_up_at IS NULL)
) WITH (fillfactor = 50);  -- every row is changed twice soon: claimed, which then is HOT, and settled
CREATE INDEX outbox_due ON outbox (due_at, id) WHERE delivered_at IS NULL AND given_up_at IS NULL;
-- Its condition says the same in other words, so that claim_events cannot be given another index.
CREATE INDEX outbox_pending_of ON outbox (upload_seq, id)
    WHERE coalesce(delivered_at, given_up_at) IS NULL;
CREATE INDEX outbox_dead ON outbox (id) WHERE given_up_at IS NOT NULL;
CREATE INDEX outbox_delivered ON outbox (delivered_at) WHERE delivered_at IS NOT NULL;
-- Exactly one outcome, once.
CREATE UNIQUE INDEX outbox_outcome ON outbox (upload_seq) WHERE outcome IS NOT NULL;

-- Data directories and their labels. One that lost its label to another is retired: it keeps the
-- label it had, so that messages about its tails can still name it.
CREATE TABLE nodes (
    id         text PRIMARY KEY,
    label      text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    stopped_at timestamptz,
    retired    boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX nodes_label ON nodes (label) WHERE NOT retired;

-- What one process at a time does.
CREATE TABLE duties (
    name   text PRIMARY KEY,
    holder text NOT NULL,
    until  timestamptz NOT NULL
);

-- One row that readiness writes to.
CREATE TABLE probe (
    id         integer PRIMARY KEY CHECK (id = 1),
    written_at timestamptz NOT NULL
);
INSERT INTO probe (id, written_at) VALUES (1, now());
