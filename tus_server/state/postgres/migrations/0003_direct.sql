-- Direct uploads, instructions of the application, outcomes, and an outbox that is delivered.

ALTER TABLE uploads
    ADD COLUMN file_id text,
    ADD COLUMN request_key text,
    ADD COLUMN instructions text,
    ADD COLUMN completed_at timestamptz,
    ADD COLUMN content_type text,
    ADD COLUMN auto_complete boolean NOT NULL DEFAULT false,
    ALTER COLUMN crc64 DROP NOT NULL,
    DROP CONSTRAINT uploads_protocol_check,
    ADD CONSTRAINT uploads_protocol_check
        CHECK (protocol IN ('tus', 'rufh', 'single', 'multipart')),
    ADD CONSTRAINT uploads_crc64_told CHECK (crc64 IS NOT NULL OR protocol IN ('single', 'multipart')),
    ADD CONSTRAINT uploads_direct_planned CHECK (
        protocol NOT IN ('single', 'multipart')
        OR (part_size IS NOT NULL AND length IS NOT NULL AND tail_length = 0));

CREATE UNIQUE INDEX uploads_active ON uploads (file_id)
    WHERE file_id IS NOT NULL
        AND state IN ('initiated', 'receiving', 'completed', 'verified', 'accepted');
CREATE INDEX uploads_by_file ON uploads (file_id, seq) WHERE file_id IS NOT NULL;
CREATE UNIQUE INDEX uploads_requested ON uploads (request_key) WHERE request_key IS NOT NULL;
CREATE INDEX uploads_auto_complete ON uploads (seq)
    WHERE state IN ('initiated', 'receiving') AND auto_complete;

ALTER TABLE upload_parts ALTER COLUMN crc64 DROP NOT NULL;

ALTER TABLE outbox
    ADD COLUMN outcome text CHECK (outcome IN ('success', 'failure')),
    ADD COLUMN job text,
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN due_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN claimed_until timestamptz,
    ADD COLUMN done text NOT NULL DEFAULT '[]',
    ADD COLUMN error text,
    ADD COLUMN given_up_at timestamptz,
    ADD COLUMN upload_seq bigint,
    ADD CONSTRAINT outbox_ended_once CHECK (delivered_at IS NULL OR given_up_at IS NULL);
-- Of an upload whose row is gone any number will do that no other has.
UPDATE outbox SET upload_seq = coalesce(
    (SELECT seq FROM uploads WHERE uploads.id = upload_id), places.place)
FROM (SELECT id, -min(id) OVER (PARTITION BY upload_id) AS place FROM outbox) AS places
WHERE outbox.id = places.id;
ALTER TABLE outbox ALTER COLUMN upload_seq SET NOT NULL, SET (fillfactor = 50);
DROP INDEX outbox_pending;
CREATE INDEX outbox_due ON outbox (due_at, id) WHERE delivered_at IS NULL AND given_up_at IS NULL;
-- Its condition says the same in other words, so that claim_events cannot be given another index.
CREATE INDEX outbox_pending_of ON outbox (upload_seq, id)
    WHERE coalesce(delivered_at, given_up_at) IS NULL;
CREATE INDEX outbox_dead ON outbox (id) WHERE given_up_at IS NOT NULL;
CREATE INDEX outbox_delivered ON outbox (delivered_at) WHERE delivered_at IS NOT NULL;
CREATE UNIQUE INDEX outbox_outcome ON outbox (upload_seq) WHERE outcome IS NOT NULL;

-- The outcome of what ended before is decided, and no job is due for it.
UPDATE uploads SET completed_at = state_on
WHERE concat IS DISTINCT FROM 'partial'
  AND state IN ('verified', 'accepted', 'rejected', 'deleted', 'error', 'canceled', 'expired');
