"""Processes of ``python main.py`` that need not import all of it anew: each is a fork of one that has done so.

To start an interpreter and to import the server is most of the work of a short command, and of a server's start. Where
a test is not about that, ``Forked`` stands in the place of ``subprocess.Popen``. The parent of all of them is this
module as a program, one for each worker of the tests.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[2]
LOOK_SECONDS = 0.02
_ONE_AT_A_TIME = threading.Lock()


class Forked:
    """``main.py WORDS``: its ``pid``, its end, and what it is to be told, as of a ``subprocess.Popen``."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        out: Path,
        err: Path,
        stdin: str = "",
    ) -> None:
        self._ends = Path(_folder()) / uuid4().hex
        ask = {"words": list(words), "cwd": str(cwd), "env": dict(env), "out": str(out), "err": str(err)}
        out.write_bytes(b"")
        err.touch()
        with _ONE_AT_A_TIME:
            parent = _parent()
            assert parent.stdin is not None
            assert parent.stdout is not None
            parent.stdin.write(json.dumps({**ask, "stdin": stdin, "ends": str(self._ends)}) + "\n")
            parent.stdin.flush()
            self.pid = int(parent.stdout.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative after a signal; None while it runs."""
        if self.returncode is None and self._ends.exists():
            self.returncode = int(self._ends.read_text())
            self._ends.unlink()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The exit status; ``subprocess.TimeoutExpired`` after so many seconds."""
        until = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("main.py", timeout)
            select.select([], [], [], LOOK_SECONDS)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    words: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """A command from its beginning to its end, as ``subprocess.run`` tells it."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        forked = Forked(words, cwd=cwd, env=env, out=out, err=err, stdin=stdin)
        try:
            status = forked.wait(timeout)
        except subprocess.TimeoutExpired:
            forked.kill()
            raise
        return subprocess.CompletedProcess(list(words), status, out.read_text(), err.read_text())


@cache
def _folder() -> str:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return folder.name


@cache
def _parent() -> subprocess.Popen[str]:
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.doors.warm"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(_leave, parent)
    return parent


def _leave(parent: subprocess.Popen[str]) -> None:
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.close()
    parent.wait(10)
    parent.stdout.close()


# ------------------------------------------------------------------------------------------------------- the parent


def serve() -> None:
    """Fork for each line of standard input, until it ends; write down how each child ended."""
    import gc

    import main  # noqa: F401

    gc.collect()
    gc.freeze()
    ends: dict[int, str] = {}
    while True:
        asked, _, _ = select.select([0], [], [], LOOK_SECONDS if ends else None)
        if asked:
            line = sys.stdin.buffer.raw.readline()  # type: ignore[attr-defined]
            if not line:
                return
            ask = json.loads(line)
            pid = os.fork()
            if not pid:
                become(ask)
            ends[pid] = ask["ends"]
            os.write(1, f"{pid}\n".encode())
        while ends:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            path = ends.pop(pid)
            Path(f"{path}.new").write_text(str(os.waitstatus_to_exitcode(status)))
            os.rename(f"{path}.new", path)


def become(ask: Mapping[str, Any]) -> None:
    """This process is now the one that was asked for."""
    status = 1
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
    try:
        with tempfile.TemporaryFile() as given:
            given.write(ask["stdin"].encode())
            given.seek(0)
            os.dup2(given.fileno(), 0)
        for path, number in (("out", 1), ("err", 2)):
            opened = os.open(ask[path], os.O_WRONLY | os.O_APPEND)
            os.dup2(opened, number)
            os.close(opened)
        os.chdir(ask["cwd"])
        os.environ.clear()
        os.environ.update(ask["env"])
        sys.argv = [str(ROOT / "main.py"), *ask["words"]]
        sys.stdin = open(0)  # noqa: SIM115
        import main

        status = main.main(ask["words"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
