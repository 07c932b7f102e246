"""Readings from /proc: CPU time and memory of a process tree, sockets."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_ESTABLISHED = "01"
_CLOSE_WAIT = "08"


def cpu_s(pid: int) -> float:
    """CPU seconds (user and system) used so far by pid, its threads and its descendants.

    Descendants that ended and were waited for are counted. Resolution: one clock tick, 10 ms.
    """
    ticks = 0
    for member in _tree(pid):
        try:
            stat = (_PROC / str(member) / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The command's name may hold blanks and brackets: count fields after the last bracket.
        fields = stat[stat.rindex(")") + 2 :].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS_PER_S


def read_calls(pid: int) -> int:
    """How often pid and its descendants have asked the kernel for bytes of files so far.

    One call for each copy inside the kernel counts, too.
    """
    calls = 0
    for member in _tree(pid):
        try:
            lines = (_PROC / str(member) / "io").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        calls += sum(int(line.split()[1]) for line in lines if line.startswith("syscr:"))
    return calls


def rss_mib(pid: int) -> float:
    """Resident MiB (VmRSS) of pid and its descendants now; pages they share count for each."""
    kib = 0
    for member in _tree(pid):
        try:
            status = (_PROC / str(member) / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in status.splitlines():
            if line.startswith("VmRSS:"):
                kib += int(line.split()[1])
    return kib / 1024


def unread_bytes(port: int) -> int:
    """Bytes the kernel holds that the owner of local port has not read yet, IPv4."""
    unread = 0
    with (_PROC / "net" / "tcp").open() as table:
        next(table)
        for line in table:
            fields = line.split()
            if fields[3] in (_ESTABLISHED, _CLOSE_WAIT) and int(fields[1][-4:], 16) == port:
                unread += int(fields[4].partition(":")[2], 16)
    return unread


def connections_to(port: int) -> int:
    """How many connections to local port are open on the client's side, IPv4."""
    with (_PROC / "net" / "tcp").open() as table:
        next(table)
        return sum(
            fields[3] == _ESTABLISHED and int(fields[2][-4:], 16) == port
            for fields in map(str.split, table)
        )


def _tree(pid: int) -> list[int]:
    """pid and its living descendants (the latter only where the kernel lists children)."""
    members = [pid]
    for member in members:
        try:
            for children in (_PROC / str(member) / "task").glob("*/children"):
                members.extend(int(child) for child in children.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return members
