"""Hashing in threads: the order of the bytes, and memory that is used again."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from tus_server.core.digests import ALGORITHMS, SIZES, new_hasher
from tus_server.disk.threads import FileThreads
from tus_server.engine.hashing import INLINE_BYTES, Hashing

KNOWN = {  # of b"123456789", big-endian: the check values of the CRC catalogue, and FIPS 180
    "crc32": "cbf43926",
    "crc32c": "e3069283",
    "crc64nvme": "ae8b14860a799888",
    "md5": "25f9e794323b453885f5181f1b624d0b",
    "sha1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    "sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
}


@pytest.fixture
async def threads() -> AsyncIterator[FileThreads]:
    with FileThreads(3) as threads:
        yield threads


@pytest.mark.parametrize(("algorithm", "digest"), KNOWN.items())
def test_an_algorithm_gives_its_known_value(algorithm: str, digest: str) -> None:
    hasher = new_hasher(algorithm)
    hasher.update(memoryview(b"1234"))
    hasher.update(memoryview(b"56789"))

    assert hasher.digest().hex() == digest
    assert SIZES[algorithm] == len(bytes.fromhex(digest))


async def test_memory_is_used_again_once_its_bytes_are_taken(threads: FileThreads) -> None:
    """Blocks of all sizes, two pieces of memory in turn, each overwritten as soon as it may be."""
    random = Random(1)
    expected = {name: new_hasher(name) for name in ALGORITHMS}
    hashing = Hashing(threads, ALGORITHMS)
    memory = [bytearray(1024 * 1024), bytearray(1024 * 1024)]
    reached = [0, 0]

    for turn in range(60):
        block, place = memory[turn % 2], turn % 2
        await hashing.taken(reached[place])
        size = random.choice([1, INLINE_BYTES, INLINE_BYTES + 1, 200_000, len(block)])
        block[:size] = random.randbytes(size)
        for hasher in expected.values():
            hasher.update(memoryview(block)[:size])
        hashing.feed(memoryview(block)[:size])
        reached[place] = hashing.fed
    await hashing.settle()

    assert hashing.digests() == {name: hasher.digest() for name, hasher in expected.items()}


async def test_the_loop_goes_on_while_a_block_is_hashed(threads: FileThreads) -> None:
    hashing = Hashing(threads, ["sha512"])
    hashing.feed(memoryview(bytes(64 * 1024 * 1024)))
    turns = 0

    settled = asyncio.ensure_future(hashing.settle())
    while not settled.done():
        turns += 1
        await asyncio.sleep(0)

    assert turns > 10
