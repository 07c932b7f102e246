-- Uploads that expire, consist of others, have digests, and keep the limit they were promised.

ALTER TABLE uploads ADD COLUMN concat TEXT;
ALTER TABLE uploads ADD COLUMN expires_at INTEGER;
ALTER TABLE uploads ADD COLUMN digests TEXT NOT NULL DEFAULT '{}';
ALTER TABLE uploads ADD COLUMN max_size INTEGER CHECK (max_size > 0);

CREATE INDEX uploads_expiring ON uploads (expires_at)
    WHERE expires_at IS NOT NULL
        AND (state = 'initiated' OR state = 'receiving'
             OR (state = 'verified' AND concat = 'partial'));
CREATE INDEX uploads_finished ON uploads (state_on)
    WHERE (state = 'verified' OR state = 'accepted' OR state = 'rejected')
        AND concat IS NOT 'partial';
CREATE INDEX uploads_ended ON uploads (state_on) WHERE freed_at IS NOT NULL AND unclean = 0;
CREATE INDEX uploads_awaiting ON uploads (seq) WHERE concat <> 'partial' AND state = 'initiated';

CREATE TABLE upload_members (
    final_seq   INTEGER NOT NULL REFERENCES uploads (seq) ON DELETE CASCADE,
    position    INTEGER NOT NULL CHECK (position >= 1),
    partial_seq INTEGER NOT NULL REFERENCES uploads (seq) ON DELETE CASCADE,
    PRIMARY KEY (final_seq, position)
) WITHOUT ROWID;
CREATE INDEX upload_members_by_partial ON upload_members (partial_seq);

DROP TRIGGER uploads_stepped;
CREATE TRIGGER uploads_stepped AFTER UPDATE OF steps ON uploads WHEN NEW.state <> OLD.state BEGIN
    INSERT INTO status_history (upload_seq, state, state_on)
    SELECT NEW.seq, value, NEW.state_on FROM json_each(NEW.steps) ORDER BY key;
    -- states.EVENTS; a partial upload is no event (tus 1.0.0, Concatenation; T100).
    INSERT INTO outbox (upload_id, kind, created_at)
    SELECT NEW.id, value, NEW.state_on FROM json_each(NEW.steps)
    WHERE NEW.concat IS NOT 'partial'
      AND (value = 'verified' OR value = 'deleted' OR value = 'error' OR value = 'canceled'
           OR value = 'expired')
    ORDER BY key;
END;
