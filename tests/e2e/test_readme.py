"""What README.md promises, tried: its walk-through as pasted, its settings, its links."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.records import Records
from tests.support.server import REPOSITORY, ServerProcess
from tus_server.settings import Settings
from tus_server.settings.table import settings_table

WALK_THROUGH = re.compile(r"^```bash walk-through\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLE = REPOSITORY / "deploy" / "tus-server.env.example"
ASSIGNMENT = re.compile(r"^#(TUS_\w+)=(.*)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#:]+)(?:#[^)]*)?\)")
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]


@pytest.mark.parametrize(
    "shell", [["bash", "--noprofile", "--norc", "-i"], ["zsh", "-f", "-i"]], ids=["bash", "zsh"]
)
def test_the_walk_through_downloads_what_it_uploaded(
    server: ServerProcess, tmp_path: Path, shell: list[str]
) -> None:
    """Interactive, because there zsh takes `#` for a word and `!` for history."""
    for tool in (shell[0], "curl"):
        if shutil.which(tool) is None:
            pytest.skip(f"the walk-through needs {tool}")
    blocks = WALK_THROUGH.findall((REPOSITORY / "README.md").read_text("utf-8"))
    assert len(blocks) == 6
    pasted = "\n".join(blocks).replace(":8080", f":{server.port}")

    done = subprocess.run(
        shell,
        input=pasted,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "LANG": "C.UTF-8"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,  # an interactive shell wants a terminal: it shall find none
        check=False,
    )

    (sent,) = tmp_path.rglob("photo.bin")
    (downloaded,) = tmp_path.rglob("copy.bin")
    assert downloaded.read_bytes() == sent.read_bytes(), done
    assert "1500000 of 3000000 bytes are stored" in done.stdout, done
    assert "copy.bin is the same file" in done.stdout, done
    (url,) = re.findall(r"http://127\.0\.0\.1:\d+/files/[0-9a-f]{32}", done.stdout)
    assert Records(server.data_dir).state(url) == "verified"


def test_the_environment_example_has_every_setting_with_its_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # where no tus-server.toml is
    for name in [name for name in os.environ if name.upper().startswith("TUS_")]:
        monkeypatch.delenv(name)
    expected = Settings()
    example = dict(ASSIGNMENT.findall(EXAMPLE.read_text("utf-8")))
    for name, value in example.items():
        monkeypatch.setenv(name, value)

    assert list(example) == [row.name for row in settings_table()]
    assert Settings() == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text("utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []
