"""A node's disk that is full, where the tails are: 507, nothing lost, and on when there is room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fleet import MIB, Fleet, PatientClient
from tests.support.tus import Tus, pattern


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted tmpfs of a few megabytes; the log of a node there is beside it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Leave no byte free on the disk of `path`."""
    with path.open("ab", buffering=0) as file:
        size = MIB
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


@pytest.mark.needs_root
def test_a_full_disk_loses_no_tail_and_the_upload_goes_on_when_there_is_room(
    fleet: Fleet, small_disk: Path
) -> None:
    node = fleet.node("small", data_dir=small_disk)
    tus = Tus(node.port)
    content = pattern(12 * MIB)
    client = PatientClient([node.port], content)
    client.create()
    client.reach(MIB)
    filler = small_disk / "filler"
    fill(filler)

    refused = tus.patch(client.url, MIB, content[MIB : 3 * MIB])
    fresh = tus.create(len(content), body=content[:MIB])

    assert refused.status == 507
    assert "retry-after" in refused
    assert fresh.status == 507
    assert client.look() == MIB
    # What is a part goes to S3 as ever.
    client.reach(10 * MIB)
    fill(filler)  # the tail that went with it has left room
    assert tus.patch(client.url, 10 * MIB, content[10 * MIB : 11 * MIB]).status == 507
    assert client.look() == 10 * MIB
    filler.unlink()
    client.reach(11 * MIB)
    client.finish()
    fleet.check_whole(client)
