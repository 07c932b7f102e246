"""Wall time, the server's CPU and our own CPU over one measured window."""

from __future__ import annotations

import time

from bench import proc


class Meter:
    """Starts when made; stop() freezes its readings, all in seconds."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self.wall_s = 0.0
        self.server_cpu_s: float | None = None
        self.load_cpu = 0.0
        self._server_start_s = self._read_server()
        self._load_start_s = time.process_time()
        self._start_s = time.perf_counter()

    def stop(self) -> None:
        self.wall_s = time.perf_counter() - self._start_s
        self.load_cpu = (time.process_time() - self._load_start_s) / self.wall_s
        end_s = self._read_server()
        if end_s is not None and self._server_start_s is not None:
            self.server_cpu_s = end_s - self._server_start_s

    def cpu_per(self, amount: float, *, scale: float = 1.0) -> float | None:
        """The server's CPU seconds, times scale, for each one of amount; None if unknown."""
        if self.server_cpu_s is None or amount <= 0:
            return None
        return self.server_cpu_s * scale / amount

    def _read_server(self) -> float | None:
        return None if self._pid is None else proc.cpu_s(self._pid)
