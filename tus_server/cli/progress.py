"""How the upload of one file goes, on stderr: a bar on a terminal, else a line when it matters."""

from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tus_server.cli.output import render_size
from tus_server.cli.replies import TransferFailed
from tus_server.printable import printable


class _SpeedColumn(ProgressColumn):
    """rich's own counts in MB where the other columns count in MiB."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{render_size(int(speed))}/s" if speed else "", "progress.data.speed")


class Reporter:
    """A patience.Watcher, and a direct.DirectWatcher. Use as a context manager."""

    def __init__(self, path: Path, *, quiet: bool) -> None:
        self.name = printable(path.name)
        self.size = path.stat().st_size
        self.offset = 0
        self.resumed_at = 0
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._progress = Progress(
            # A name is no markup.
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            _SpeedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            # rich would send what is printed on stdout to stderr as well.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        # With total 0 rich shows an endless bar.
        self._task = self._progress.add_task(self.name, total=max(self.size, 1), note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is None:
            self._progress.update(self._task, completed=max(self.size, 1), note=self._note())
        self._progress.stop()

    def started(self, offset: int, *, resumed: bool) -> None:
        self.offset = offset
        if resumed:
            self.resumed_at = offset
            self._say(f"{self.name}: resumed at {render_size(offset)} of {render_size(self.size)}")
        # The speed counts from here.
        self._progress.reset(
            self._task, total=max(self.size, 1), completed=offset, note=self._note()
        )

    def moved(self, offset: int) -> None:
        self.offset = offset
        self._progress.update(self._task, completed=offset)

    def waiting(self, failure: TransferFailed, delay_s: float, attempt: int) -> None:
        self._say(f"{self.name}: {printable(str(failure))}; attempt {attempt} in {delay_s:g} s")

    def verifying(self) -> None:
        self._say(f"{self.name}: all of it is there; the server is verifying it")

    def _note(self) -> str:
        return f"resumed at {render_size(self.resumed_at)}" if self.resumed_at else ""

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, soft_wrap=True)
