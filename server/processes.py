"""Processes, ports and locks of this machine, as far as the embedded database needs them."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows: SIGTERM ends at once there


def hold(path: Path) -> BinaryIO | None:
    """Lock `path` until the file is closed or the process dies, however it dies. None: another process has it."""
    file = open(path, "a+b")  # noqa: SIM115 - held beyond this function
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def number_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # missing, or empty after a clean stop
        return None


def runs_with(pid: int, program: str, word: Path) -> bool:
    """Whether process `pid` is alive, is `program` and has `word` among its arguments: numbers are given anew."""
    try:
        if Path("/proc/self/cmdline").exists():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        else:
            words = subprocess.check_output(["ps", "-ww", "-o", "command=", "-p", str(pid)]).split()
    except (OSError, subprocess.CalledProcessError):  # gone; on Windows never told: the locks decide there
        return False
    return os.fsencode(program) in words[0] and os.fsencode(word) in words if words else False


def send_signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def listens(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        try:
            return probe.connect_ex(("127.0.0.1", port)) == 0
        except OverflowError:  # a damaged file
            return False


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def free_port() -> int:
    """A port on which nothing listens, below those that systems hand out for outgoing connections (RFC 6335 §6):
    who keeps it will find it free again."""
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        if is_free(port):
            return port


def read_after(log: Path, position: int) -> bytes:
    """What was written to `log` after `position`."""
    with open(log, "rb") as file:
        file.seek(max(position, 0))
        return file.read()
