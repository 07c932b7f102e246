-- What only an operator asks. Each is run in a transaction, for the sake of poolers.

-- name: surroundings
-- The encryption is that of the connection to Postgres itself, also where a pooler is in between.
SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
    current_setting('full_page_writes') = 'on',
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer,
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
    current_user::text, current_schema()::text

-- name: backend
SELECT pg_backend_pid()

-- name: clock
SELECT extract(epoch FROM clock_timestamp())::float8

-- name: living_nodes
-- $1 a node that is not counted, $2 seconds of silence.
SELECT count(*) FROM nodes
WHERE id <> $1 AND stopped_at IS NULL AND seen_at > now() - make_interval(secs => $2)

-- name: namesake
-- $1 label, $2 our node, $3 seconds of silence: as at a start, which would be refused.
SELECT id, extract(epoch FROM now() - seen_at)::float8 FROM nodes
WHERE label = $1 AND id <> $2 AND NOT retired AND stopped_at IS NULL
  AND seen_at > now() - make_interval(secs => $3)
