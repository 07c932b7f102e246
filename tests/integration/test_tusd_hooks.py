"""tusd's hooks, answered by a real receiver: asked before, told after."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.integration.conftest import World, soon
from tests.support.fakes import FakeBody
from tests.support.sink import HANGS, OK, Reply, Sink
from tus_server.core.errors import (
    CheckPostponed,
    ContentRefused,
    DeliveryFailed,
    RefusedByHook,
    TusServerError,
)
from tus_server.core.states import UploadState as S
from tus_server.core.upload import Protocol, Upload
from tus_server.engine.concatenate import Concatenate, concatenate
from tus_server.engine.create import Create, create
from tus_server.engine.recover import recover
from tus_server.engine.terminate import terminate
from tus_server.engine.terms import Terms
from tus_server.jobs.outgoing import MOST_BYTES, Outgoing
from tus_server.jobs.tusd import HookGate, HookTarget, HookVerifier, TusdHooks
from tus_server.jobs.tusd_wire import Hook
from tus_server.ports import ANONYMOUS, Credentials, Event, Principal

CLIENT = Principal(
    request=Credentials(
        "POST", "/files/", {"host": "h", "cookie": "a=b", "authorization": "Bearer x"}, "10.0.0.7"
    )
)


def says(status: int = 200, **document: Any) -> Reply:
    return Reply(status, json.dumps(document).encode())


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as sink:
        yield sink


class Hooked:
    """A world whose engine asks hooks, and the hooks."""

    def __init__(self, world: World, sink: Sink, outgoing: Outgoing) -> None:
        self.world, self.sink = world, sink
        self._outgoing = outgoing
        self.use(frozenset(Hook))

    def use(self, events: frozenset[Hook], *, headers: tuple[str, ...] = ()) -> None:
        """Let there be these hooks."""
        hooks = TusdHooks(
            outgoing=self._outgoing,
            url=self.sink.url("/hooks?key=1"),
            events=events,
            headers=headers,
            path="/files/",
            find_storage=lambda upload: {"Type": "filestore", "Path": f"/srv/{upload.id}"},
        )
        self.world.engine.gate = HookGate(hooks)
        self.world.engine.verifiers = (HookVerifier(hooks),) if Hook.PRE_FINISH in events else ()
        self.target = HookTarget(hooks)

    async def create(self, *script: bytes, length: int = 3, metadata: str | None = None) -> Upload:
        command = Create(metadata, Protocol.TUS, Terms(length=length))
        body = FakeBody(*script)
        return (await soon(create(self.world.engine, command, CLIENT, body))).upload

    async def rows(self) -> int:
        return len(await self.world.real_state.list_uploads(None, 100))

    def asked(self) -> list[str]:
        """Give the hooks that were sent."""
        return [got.document["Type"] for got in self.sink.received]

    def told(self, number: int = -1) -> Any:
        return self.sink.received[number].document["Event"]


@pytest.fixture(params=["fakes", "disk"])
async def hooked(
    request: pytest.FixtureRequest, tmp_path: Any, sink: Sink
) -> AsyncIterator[Hooked]:
    async with World(tmp_path if request.param == "disk" else None) as world:
        async with Outgoing(world.clock, agent="tus-server/test", timeout_s=1.0) as outgoing:
            yield Hooked(world, sink, outgoing)


# --- pre-create


async def test_before_a_creation_the_application_is_asked(hooked: Hooked) -> None:
    upload = await hooked.create(metadata="filename YQ==")

    assert hooked.asked() == ["pre-create"]
    assert hooked.sink.received[0].path == "/hooks?key=1"
    assert hooked.told()["Upload"]["MetaData"] == {"filename": "a"}
    assert hooked.told()["HTTPRequest"]["Header"]["Cookie"] == ["a=b"]
    assert hooked.told()["HTTPRequest"]["RemoteAddr"] == "10.0.0.7:0"
    assert upload.metadata == "filename YQ=="


async def test_a_refused_creation_leaves_nothing(hooked: Hooked) -> None:
    said = {"StatusCode": 413, "Body": "too big", "Header": {"X-Why": "quota"}}
    hooked.sink.otherwise = says(HTTPResponse=said, RejectUpload=True)

    with pytest.raises(RefusedByHook) as caught:
        await hooked.create(b"abc")

    refusal = caught.value
    assert (refusal.status, refusal.body, refusal.fields) == (413, "too big", {"x-why": "quota"})
    assert await hooked.rows() == 0


async def test_a_refusal_without_words_is_a_400(hooked: Hooked) -> None:
    hooked.sink.otherwise = says(RejectUpload=True, HTTPResponse={"StatusCode": 200})

    with pytest.raises(RefusedByHook) as caught:
        await hooked.create()

    assert (caught.value.status, caught.value.body) == (400, None)


async def test_metadata_may_be_replaced(hooked: Hooked) -> None:
    changes = {"MetaData": {"filename": "ü.txt", "project": "7", "empty": ""}}
    hooked.sink.otherwise = says(ChangeFileInfo=changes)

    upload = await hooked.create(metadata="filename YQ==,secret Yg==")

    assert upload.metadata == "filename w7wudHh0,project Nw==,empty"
    assert (await hooked.world.row(upload)).metadata == upload.metadata


async def test_metadata_may_be_emptied(hooked: Hooked) -> None:
    hooked.sink.otherwise = says(ChangeFileInfo={"MetaData": {}})

    assert (await hooked.create(metadata="filename YQ==")).metadata is None


async def test_metadata_that_no_header_can_carry_are_not_taken(hooked: Hooked) -> None:
    hooked.sink.otherwise = says(ChangeFileInfo={"MetaData": {"a b": "x"}})

    with pytest.raises(CheckPostponed):
        await hooked.create()
    assert await hooked.rows() == 0


async def test_an_id_and_a_place_of_the_applications_own_are_passed_over(
    hooked: Hooked, logged: Callable[[], str]
) -> None:
    hooked.sink.otherwise = says(ChangeFileInfo={"ID": "mine", "Storage": {"Path": "/x"}})

    upload = await hooked.create()

    assert upload.id != "mine"
    said = logged()
    assert "hooks.ignored" in said
    assert "ChangeFileInfo.ID, ChangeFileInfo.Storage" in said


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500),
        Reply(404, b"<html>"),
        Reply(302, b"", (("Location", "http://127.0.0.1:1/"),)),
        Reply(200, b"<html>"),
        Reply(200, b'{"RejectUpload": "yes"}'),
        Reply(200, b" " * (MOST_BYTES + 1)),
        Reply(cuts=True),
        Reply(200, b"x" * 100, cuts=True, after_head=True),
        HANGS,
    ],
)
async def test_without_an_answer_nothing_is_created(hooked: Hooked, reply: Reply) -> None:
    hooked.sink.otherwise = reply

    with pytest.raises(CheckPostponed, match="The hook pre-create gave no answer"):
        await hooked.create()

    assert await hooked.rows() == 0


async def test_a_refusal_counts_whatever_the_status_it_comes_with(hooked: Hooked) -> None:
    hooked.sink.otherwise = says(403, RejectUpload=True)

    with pytest.raises(RefusedByHook):
        await hooked.create()


async def test_header_fields_are_passed_on_where_that_is_wanted(hooked: Hooked) -> None:
    hooked.use(frozenset(Hook), headers=("Authorization", "X-Missing"))

    await hooked.create()

    fields = hooked.sink.received[0].fields
    assert fields["authorization"] == "Bearer x"
    assert "x-missing" not in fields
    assert "cookie" not in fields
    assert fields["content-type"] == "application/json"


async def test_partial_and_final_uploads_are_asked_about_too(hooked: Hooked) -> None:
    world = hooked.world
    command = Create(None, Protocol.TUS, Terms(length=3), is_partial=True)
    partial = (await soon(create(world.engine, command, CLIENT, FakeBody(b"abc")))).upload
    final = Concatenate(f"final;/files/{partial.id}", [partial.id], None)

    upload = await soon(concatenate(world.engine, final, CLIENT))

    asked = [got.document for got in hooked.sink.received]
    creations = [one["Event"]["Upload"] for one in asked if one["Type"] == "pre-create"]
    assert [(one["IsPartial"], one["IsFinal"]) for one in creations] == [
        (True, False),
        (False, True),
    ]
    assert creations[1]["PartialUploads"] == [partial.id]
    assert creations[1]["Size"] == 3
    hooked.sink.otherwise = says(RejectUpload=True)
    with pytest.raises(RefusedByHook):
        await soon(concatenate(world.engine, final, CLIENT))
    assert await hooked.rows() == 2
    assert upload.state is S.VERIFIED


# --- pre-finish


async def test_before_an_upload_is_verified_the_application_is_asked(hooked: Hooked) -> None:
    upload = await hooked.create(b"abc")

    assert hooked.asked() == ["pre-create", "pre-finish"]
    told = hooked.told()["Upload"]
    assert (told["ID"], told["Offset"], told["Size"]) == (upload.id, 3, 3)
    assert told["Storage"] == {"Type": "filestore", "Path": f"/srv/{upload.id}"}
    assert upload.state is S.VERIFIED


@pytest.mark.parametrize(
    "said",
    [
        {"RejectUpload": True, "HTTPResponse": {"Body": "a virus"}},
        {"HTTPResponse": {"StatusCode": 422, "Body": "a virus"}},
    ],
)
async def test_refused_content_is_an_error_of_the_upload(
    hooked: Hooked, said: dict[str, Any]
) -> None:
    hooked.sink.script.extend([OK, says(**said)])

    with pytest.raises(ContentRefused) as caught:
        await hooked.create(b"abc")

    assert (caught.value.code, caught.value.detail) == ("refused_by_hook", "a virus")
    (row,) = await hooked.world.real_state.list_uploads(None, 10)
    assert (row.state, row.error_code) == (S.ERROR, "refused_by_hook")
    assert row.error_message == "a virus"


async def test_without_an_answer_an_upload_stays_completed_until_there_is_one(
    hooked: Hooked,
) -> None:
    hooked.sink.script.extend([OK, Reply(503)])
    upload = await hooked.create()
    with pytest.raises(CheckPostponed):
        await hooked.world.append(upload, b"abc")
    assert (await hooked.world.row(upload)).state is S.COMPLETED

    await soon(recover(hooked.world.engine, receiving=False))

    assert (await hooked.world.row(upload)).state is S.VERIFIED
    assert await hooked.world.content(upload) == b"abc"


# --- pre-terminate


async def test_before_a_termination_the_application_is_asked(hooked: Hooked) -> None:
    upload = await hooked.create(b"abc")

    await soon(terminate(hooked.world.engine, upload.id, CLIENT))

    assert hooked.asked()[-1] == "pre-terminate"
    assert hooked.told()["Upload"]["ID"] == upload.id
    assert (await hooked.world.row(upload)).state is S.DELETED


async def test_a_refused_termination_changes_nothing(hooked: Hooked) -> None:
    upload = await hooked.create(b"abc")
    hooked.sink.otherwise = says(RejectTermination=True, HTTPResponse={"StatusCode": 403})

    with pytest.raises(RefusedByHook) as caught:
        await soon(terminate(hooked.world.engine, upload.id, ANONYMOUS))

    assert caught.value.status == 403
    assert (await hooked.world.row(upload)).state is S.VERIFIED
    assert not await hooked.world.is_held(upload)


async def test_without_an_answer_nothing_is_terminated(hooked: Hooked) -> None:
    upload = await hooked.create()
    hooked.sink.otherwise = Reply(500)

    with pytest.raises(CheckPostponed):
        await soon(terminate(hooked.world.engine, upload.id, CLIENT))

    assert (await hooked.world.row(upload)).state is S.INITIATED


async def test_of_an_unknown_upload_nobody_is_asked(hooked: Hooked) -> None:
    upload = await hooked.create(b"abc")
    await soon(terminate(hooked.world.engine, upload.id, CLIENT))
    asked = len(hooked.sink.received)

    with pytest.raises(TusServerError):
        await soon(terminate(hooked.world.engine, upload.id, CLIENT))

    assert len(hooked.sink.received) == asked


# --- which hooks there are


async def test_only_the_hooks_that_are_wanted_are_sent(hooked: Hooked) -> None:
    hooked.use(frozenset({Hook.POST_FINISH}))

    upload = await hooked.create(b"abc")
    await soon(terminate(hooked.world.engine, upload.id, CLIENT))

    assert hooked.asked() == []
    kinds = {kind for kind in S if hooked.target.wants(Event(upload.id, kind, upload.created_at))}
    assert kinds == {S.VERIFIED}


# --- post-*


@pytest.mark.parametrize(
    ("kind", "hook"),
    [
        (S.INITIATED, "post-create"),
        (S.RECEIVING, "post-receive"),
        (S.VERIFIED, "post-finish"),
        (S.DELETED, "post-terminate"),
        (S.CANCELED, "post-terminate"),
        (S.EXPIRED, "post-terminate"),
        (S.ERROR, "post-terminate"),
    ],
)
async def test_events_are_told_as_tusd_names_them(hooked: Hooked, kind: S, hook: str) -> None:
    upload = await hooked.create(b"abc")

    event = Event(upload.id, kind, upload.created_at)
    assert hooked.target.wants(event)
    await soon(hooked.target.deliver(event, upload, []))

    assert hooked.asked()[-1] == hook
    assert hooked.told()["Upload"]["ID"] == upload.id
    assert hooked.told()["HTTPRequest"]["URI"] == f"/files/{upload.id}"


async def test_verdicts_of_the_application_are_no_hooks(hooked: Hooked) -> None:
    upload = await hooked.create()

    for kind in (S.ACCEPTED, S.REJECTED):
        assert not hooked.target.wants(Event(upload.id, kind, upload.created_at))


@pytest.mark.parametrize("reply", [Reply(500), Reply(404), Reply(302), Reply(cuts=True), HANGS])
async def test_a_hook_that_fails_is_told_again(hooked: Hooked, reply: Reply) -> None:
    upload = await hooked.create()
    hooked.sink.script.append(reply)
    event = Event(upload.id, S.VERIFIED, upload.created_at)

    with pytest.raises(DeliveryFailed, match="post-finish") as caught:
        await soon(hooked.target.deliver(event, upload, []))

    assert not caught.value.is_final
    await soon(hooked.target.deliver(event, upload, []))


async def test_what_a_hook_wants_afterwards_is_passed_over(
    hooked: Hooked, logged: Callable[[], str]
) -> None:
    upload = await hooked.create()
    for reply in (says(StopUpload=True), Reply(200, b"<html>")):
        hooked.sink.script.append(reply)
        event = Event(upload.id, S.RECEIVING, upload.created_at)
        await soon(hooked.target.deliver(event, upload, []))

    assert "StopUpload" in logged()


async def test_of_an_upload_whose_row_was_removed_no_hook_is_told(hooked: Hooked) -> None:
    upload = await hooked.create()
    event = Event(upload.id, S.DELETED, upload.created_at)

    with pytest.raises(DeliveryFailed) as caught:
        await soon(hooked.target.deliver(event, None, []))

    assert caught.value.is_final
