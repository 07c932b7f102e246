"""Tails: where bytes too few for a part are kept between two requests, and what if they are gone.

A tail lies on the disk of the node that an upload's id names, and nowhere else; so a resume
that lands elsewhere, or finds less or other bytes than the row says, is refused loudly and changes
nothing (P4). Where no disk of that name is here (failover), or by policy, it is parked in the
object store instead, and any node goes on from it. An old tail is removed only after what
contains its bytes is committed, and before the lease ends: the next holder may use the same name.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum

import structlog

from tus_server.core.checksums import EMPTY_CRC64, crc64
from tus_server.core.errors import StoreUnavailable, TailMissing, TusServerError
from tus_server.core.ids import node_label
from tus_server.core.upload import Tail, Upload
from tus_server.ports import FoundTail, Lease, Node, PartWriter, StateStore, TailStore

log = structlog.get_logger(__name__)

MAX_SAVING = 16  # tails at a time


class TailPolicy(StrEnum):
    """What becomes of tails when a node is lost."""

    STRICT = "strict"  # nothing: an operator decides
    REWIND = "rewind"  # given up once the node has been silent for long
    SHARED = "shared"  # there are none on disk: they are parked in the object store


@dataclass(frozen=True, slots=True, kw_only=True)
class Tails:
    """The tails of this node's disk, and the parked ones of all nodes."""

    state: StateStore
    disk: TailStore
    parked: TailStore
    node: Node
    policy: TailPolicy = TailPolicy.STRICT
    node_dead_after_s: float = 300.0
    # A thousand clients that are cut at once must not read a thousand spill files at once.
    saving: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_SAVING))
    # Files whose commit failed: the sweeper finds out what became of it.
    suspects: list[FoundTail] = field(default_factory=list)

    async def read(self, upload: Upload) -> AsyncGenerator[memoryview, None]:
        """Give the bytes of upload.tail, as TailStore.read. Raises: TailMissing, in words."""
        assert upload.tail is not None
        try:
            async with aclosing(self._store(upload.tail).read(upload)) as content:
                async for block in content:
                    yield block
        except TailMissing as exc:
            raise await self._explained(upload, exc) from exc

    def continues(self, upload: Upload, lease: Lease) -> bool:
        """Tell whether the next tail has the file of the one there is."""
        tail = upload.tail
        return tail is not None and is_same_place(tail, self._placed(tail, upload, lease))

    async def save(
        self,
        upload: Upload,
        lease: Lease,
        writer: PartWriter,
        rest: memoryview,
        whole: Tail,
        *,
        skipped: int,
    ) -> Tail:
        """Keep all that `writer` and `rest` have as the new tail of `upload`, durably.

        whole: its length and CRC. skipped: bytes of the old tail it begins with that the writer
        has not; only where it continues. The old one stays as it is, or is continued where nobody
        but us can write to it. Raises: StorageFull, StoreUnavailable.
        """
        old = upload.tail
        tail = self._placed(whole, upload, lease)
        kept = old.length if old is not None and is_same_place(old, tail) else 0
        assert skipped in (0, kept)
        try:
            async with self.saving:
                await self._store(tail).save(
                    upload,
                    generation=tail.generation,
                    kept=kept,
                    content=_checked(writer.read_back(kept - skipped, rest), upload, kept, whole),
                )
        except TailMissing as exc:
            # It was there when this request began: another holder has removed it, or a person.
            raise StoreUnavailable(f"The tail is gone since it was read: {exc.detail}") from exc
        return tail

    async def remove(self, upload: Upload, tail: Tail) -> bool:
        """Remove a tail that `upload`, the row as committed, no longer has; never raises.

        Tells whether no look at the store is needed: what is on a disk that node sweeps.
        """
        if tail.node not in (None, self.node.id):
            return True
        return await self._store(tail).remove(upload, tail) or tail.node is not None

    async def check(self) -> None:
        """Raise StoreUnavailable or StorageFull unless a tail could be saved now."""
        await self.disk.check()

    async def disown(self, upload: Upload, tail: Tail, *, lost: bool) -> None:
        """Let what was saved go, unless it turns out to be the row's; never raises.

        For a tail whose commit failed; lost: because the lease was another's by then. What was
        parked meanwhile is found by recovery, unless that has been there before.
        """
        if tail.node is not None:
            self.suspects.append(FoundTail(upload.id, tail.generation, 0.0))
        elif lost:
            with suppress(TusServerError):
                row = await self.state.find_upload(upload.id)
                if row is None or row.tail is None or not is_same_place(row.tail, tail):
                    await self.parked.remove(upload, tail)

    async def may_rewind(self, tail: Tail) -> bool:
        """Tell whether policy gives a missing tail up: its node has been silent for long."""
        if self.policy is not TailPolicy.REWIND or tail.node in (None, self.node.id):
            return False
        assert tail.node is not None
        seen = await self.state.find_node(tail.node)
        return seen is None or seen.silent_s > self.node_dead_after_s

    def _placed(self, tail: Tail, upload: Upload, lease: Lease) -> Tail:
        """Say where a tail of `upload` goes that is saved under `lease`."""
        if self.policy is TailPolicy.SHARED or node_label(upload.id) not in (None, self.node.label):
            return replace(tail, node=None, generation=lease.epoch)
        return replace(tail, node=self.node.id, generation=upload.generation)

    def _store(self, tail: Tail) -> TailStore:
        return self.parked if tail.node is None else self.disk

    async def _explained(self, upload: Upload, cause: TailMissing) -> TailMissing:
        """Say where the bytes should be and what to do; one line in the log of an operator."""
        tail = upload.tail
        assert tail is not None
        owner = await self.owner(tail)
        lost = f"the bytes from {upload.committed_bytes} to {upload.offset}"
        rewind = f"an operator can give them up with: tus-server uploads rewind {upload.id}"
        if tail.node in (None, self.node.id):
            hint = f"This node had {lost}. If they cannot be brought back, {rewind}"
        elif owner == self.node.label:
            hint = (
                f"A data directory that had this node's name before has {lost}. If lost, {rewind}"
            )
        else:
            hint = (
                f"Node {owner} alone has {lost}: send this request there. If it is gone, {rewind}"
            )
        error = TailMissing(
            cause.detail,
            upload=upload.id,
            tail_node=owner,
            this_node=self.node.label,
            offset=upload.offset,
            committed_bytes=upload.committed_bytes,
            hint=hint,
        )
        log.error("upload.tail_missing", detail=cause.detail, **error.members)
        return error

    async def owner(self, tail: Tail) -> str:
        """Give the label of the node that should have a tail."""
        if tail.node is None:
            return "the object store"
        if tail.node == self.node.id:
            return self.node.label
        seen = await self.state.find_node(tail.node)
        return seen.node.label if seen else tail.node


async def _checked(
    content: AsyncGenerator[memoryview, None], upload: Upload, kept: int, whole: Tail
) -> AsyncGenerator[memoryview, None]:
    """Pass `content` on, and raise at its end if it is not what `whole` says.

    What comes back from a spill file is about to be the only copy of bytes that the row counts.
    """
    size = kept
    crc = upload.tail.crc64 if kept and upload.tail is not None else EMPTY_CRC64
    async with aclosing(content):
        async for block in content:
            size += len(block)
            crc = crc64(block, crc)
            yield block
    if (size, crc) != (whole.length, whole.crc64):
        raise StoreUnavailable("The bytes of the tail are not what was received.")


def is_same_place(one: Tail, other: Tail) -> bool:
    """Tell whether two tails of an upload have the same file or object."""
    return (one.node, one.generation) == (other.node, other.generation)
