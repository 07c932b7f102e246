-- Uploads that expire, consist of others, have digests, and keep the limit they were promised.

ALTER TABLE uploads
    ADD COLUMN concat text,
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN digests text NOT NULL DEFAULT '{}',
    ADD COLUMN max_size bigint CHECK (max_size > 0);

CREATE INDEX uploads_expiring ON uploads (expires_at, seq)
    WHERE expires_at IS NOT NULL
        AND (state IN ('initiated', 'receiving') OR (state = 'verified' AND concat = 'partial'));
CREATE INDEX uploads_finished ON uploads (state_on, seq)
    WHERE state IN ('verified', 'accepted', 'rejected') AND concat IS DISTINCT FROM 'partial';
CREATE INDEX uploads_ended ON uploads (state_on, seq) WHERE freed_at IS NOT NULL AND NOT unclean;
CREATE INDEX uploads_awaiting ON uploads (seq) WHERE state = 'initiated' AND concat <> 'partial';
CREATE INDEX uploads_by_tail ON uploads (tail_node) WHERE tail_node IS NOT NULL;

CREATE TABLE upload_members (
    final_seq   bigint NOT NULL REFERENCES uploads (seq) ON DELETE CASCADE,
    position    integer NOT NULL CHECK (position >= 1),
    partial_seq bigint NOT NULL REFERENCES uploads (seq) ON DELETE CASCADE,
    PRIMARY KEY (final_seq, position)
);
CREATE INDEX upload_members_by_partial ON upload_members (partial_seq);

CREATE TABLE duties (
    name   text PRIMARY KEY,
    holder text NOT NULL,
    until  timestamptz NOT NULL
);
