-- Enqueuing the job of an event with procrastinate, in the transaction that writes down in the event
-- that it is. Each statement is for some of its versions, which differ by the function alone.
--
-- $1 event, $2 attempts and $3 since when it is due, by which an attempt is told from others (see
-- settle_events); $4 the target that then has it; $5 queue, $6 task, $7 lock, $8 arguments as JSON.
-- Gives a row where the event is still this attempt's. The event is locked first: `done` is then
-- what was committed last, so of two at once one finds the target there.

-- name: defer_jobs_v1
-- 3.2 and later. Of the answer only the number is asked for: asyncpg would ask each new connection
-- for the type of an array, with three statements more.
WITH ours AS (
    SELECT id, done, done::jsonb @> to_jsonb($4::text) AS is_done FROM outbox
    WHERE id = $1 AND attempts = $2 AND due_at = $3
      AND delivered_at IS NULL AND given_up_at IS NULL
    FOR NO KEY UPDATE
), noted AS (
    UPDATE outbox SET done = (ours.done::jsonb || to_jsonb($4::text))::text
    FROM ours WHERE outbox.id = ours.id AND NOT is_done
    RETURNING outbox.id
)
SELECT CASE WHEN noted.id IS NOT NULL THEN cardinality(procrastinate_defer_jobs_v1(ARRAY[
        ROW($5::varchar, $6::varchar, 0, $7::text, NULL, $8::text::jsonb, NULL)
            ::procrastinate_job_to_defer_v1
    ])) END
FROM ours LEFT JOIN noted ON noted.id = ours.id

-- name: defer_job_v1
-- 3.0 and 3.1.
WITH ours AS (
    SELECT id, done, done::jsonb @> to_jsonb($4::text) AS is_done FROM outbox
    WHERE id = $1 AND attempts = $2 AND due_at = $3
      AND delivered_at IS NULL AND given_up_at IS NULL
    FOR NO KEY UPDATE
), noted AS (
    UPDATE outbox SET done = (ours.done::jsonb || to_jsonb($4::text))::text
    FROM ours WHERE outbox.id = ours.id AND NOT is_done
    RETURNING outbox.id
)
SELECT CASE WHEN noted.id IS NOT NULL THEN procrastinate_defer_job_v1(
        $5::varchar, $6::varchar, 0, $7::text, NULL::text, $8::text::jsonb, NULL::timestamptz
    ) END
FROM ours LEFT JOIN noted ON noted.id = ours.id

-- name: defer_job
-- 2.0.3 and later.
WITH ours AS (
    SELECT id, done, done::jsonb @> to_jsonb($4::text) AS is_done FROM outbox
    WHERE id = $1 AND attempts = $2 AND due_at = $3
      AND delivered_at IS NULL AND given_up_at IS NULL
    FOR NO KEY UPDATE
), noted AS (
    UPDATE outbox SET done = (ours.done::jsonb || to_jsonb($4::text))::text
    FROM ours WHERE outbox.id = ours.id AND NOT is_done
    RETURNING outbox.id
)
SELECT CASE WHEN noted.id IS NOT NULL THEN procrastinate_defer_job(
        $5::varchar, $6::varchar, 0, $7::text, NULL::text, $8::text::jsonb, NULL::timestamptz
    ) END
FROM ours LEFT JOIN noted ON noted.id = ours.id
