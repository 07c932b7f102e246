"""The JSON API on several nodes over Postgres and S3: any node does any step of an upload."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx

from tests.support.api import Api, code_of, state_of, states_of
from tests.support.nodes import MIB, Cluster
from tests.support.tus import pattern
from tests.support.waiting import wait_until

PART_SIZE = 5 * MIB
WHOLE = pattern(2 * PART_SIZE + 1000)
WAYS = ["initiated", "receiving", "completed", "verified"]


def apis(cluster: Cluster) -> tuple[Api, Api]:
    return Api(cluster.nodes["a"].port), Api(cluster.nodes["b"].port)


def begin(api: Api, **about: object) -> str:
    view = api.begin("multipart", len(WHOLE), part_size_bytes=PART_SIZE, **about)
    assert view["multipart"]["part_count"] == 3
    return str(view["id"])


def piece(number: int) -> bytes:
    return WHOLE[(number - 1) * PART_SIZE : number * PART_SIZE]


def test_every_step_may_be_another_node_s(pair: Cluster) -> None:
    a, b = apis(pair)
    with a, b:
        upload_id = begin(a, filename="a.bin")
        signed = {one["part_number"]: one for one in b.sign(upload_id)}
        assert all(one["url"].startswith(pair.s3.endpoint) for one in signed.values())
        order = [3, 1, 2, 1]
        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(lambda n: (n, a.send(signed[n], piece(n))), order))
        assert {reply.status_code for _, reply in replies} == {200}
        report = [
            {"part_number": n, "etag": reply.headers["etag"]} for n, reply in dict(replies).items()
        ]
        assert all(part["arrived"] for part in a.parts(upload_id))
        assert b.find(upload_id)["committed_bytes"] == len(WHOLE)

        reply = b.post(upload_id, "complete", {"parts": report}, fields={"Prefer": "wait=30"})

        assert (reply.status_code, states_of(reply.json())) == (200, WAYS)
        assert states_of(a.find(upload_id)) == WAYS
        assert httpx.get(a.find(upload_id)["object"]["url"]).content == WHOLE
        assert pair.content(f"/files/{upload_id}") == WHOLE
        assert pair.events(upload_id) == ["verified"]


def test_many_that_complete_on_both_nodes_complete_once(pair: Cluster) -> None:
    a, b = apis(pair)
    with a, b:
        upload_id = begin(a)
        report = {"parts": a.send_all(upload_id, WHOLE)}
        with ThreadPoolExecutor(6) as pool:
            replies = list(
                pool.map(
                    lambda api: api.post(
                        upload_id, "complete", report, fields={"Prefer": "wait=30"}
                    ),
                    [a, b] * 3,
                )
            )

        assert {(reply.status_code, state_of(reply.json())) for reply in replies} == {
            (200, "verified")
        }
        assert states_of(a.find(upload_id)) == WAYS
        assert pair.events(upload_id) == ["verified"]


def test_a_file_id_and_a_key_are_one_for_all_nodes(pair: Cluster) -> None:
    a, b = apis(pair)
    file_id, key = str(uuid4()), str(uuid4())
    with a, b:
        with ThreadPoolExecutor(6) as pool:
            views = list(
                pool.map(lambda api: api.begin("tus", 5, key=key, file_id=file_id), [a, b] * 3)
            )
        assert len({view["id"] for view in views}) == 1

        reply = b.try_to_begin("single", 5, file_id=file_id)
        assert code_of(reply) == (409, "file_id_taken")
        assert reply.json()["upload"] == views[0]["id"]
        assert [view["id"] for view in b.page(file_id=file_id)["uploads"]] == [views[0]["id"]]
        a.delete(views[0]["id"])


def test_a_stream_on_one_node_tells_what_happens_on_the_other(pair: Cluster) -> None:
    a, b = apis(pair)
    with a, b:
        upload_id = begin(a)
        path = f"/api/uploads/{upload_id}/events"
        with a.client.stream("GET", path) as reply:
            lines = reply.iter_lines()
            assert "event: status" in (next(lines) for _ in range(5))
            report = {"parts": b.send_all(upload_id, WHOLE)}
            b.post(upload_id, "complete", report)
            rest = list(lines)

    ids = [line for line in rest if line.startswith("id:")]
    assert ids == ["id: 2", "id: 3", "id: 4"]


def test_progress_moves_though_nobody_tells_of_the_parts(pair: Cluster) -> None:
    a, b = apis(pair)
    with a, b:
        upload_id = begin(a)
        (signed,) = a.sign(upload_id, [2])
        with a.client.stream("GET", f"/api/uploads/{upload_id}/events") as reply:
            lines = reply.iter_lines()
            a.send(signed, piece(2))
            # The stream itself looks into the store now and then.
            assert next(line for line in lines if line == "id: 2")
        assert b.find(upload_id)["committed_bytes"] == PART_SIZE
        a.delete(upload_id)


def test_a_cancelled_upload_leaves_nothing_in_the_store(pair: Cluster) -> None:
    a, b = apis(pair)
    with a, b:
        upload_id = begin(a)
        signed = {one["part_number"]: one for one in a.sign(upload_id)}
        a.send(signed[1], piece(1))

        assert state_of(b.delete(upload_id).json()) == "canceled"

        assert a.send(signed[2], piece(2)).status_code == 404
        wait_until(lambda: pair.key(upload_id) not in pair.multiparts(), "its parts are gone")
