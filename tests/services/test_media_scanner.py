"""Files that ClamAV looks at: what it finds is not taken, and nothing is while it does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from models.db import Database
from models.errors import Refusal
from server.adapters.clamd import AT_ONCE, WAITING_MAX, Clamd
from server.config import load_config
from tests.fakes import CountingIds, VirtualClock
from tests.services.mediakit import ANN, PDF, Album, body

# What every scanner takes for a virus and is none, in two halves: else one would be found in this file.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR" + b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


@dataclass
class Daemon:
    """clamd as far as INSTREAM goes."""

    address: str = ""
    answer: bytes | None = None
    silent: bool = False
    # It hangs up in the middle of a file, as where a file is larger than its limit.
    full: bool = False
    seen: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        assert await reader.readuntil(b"\0") == b"zINSTREAM\0"
        whole = b""
        while size := int.from_bytes(await reader.readexactly(4), "big"):
            whole += await reader.readexactly(size)
            if self.full:
                writer.write(b"INSTREAM size limit exceeded. ERROR\0")
                writer.transport.close()
                return
        self.seen.append(whole)
        if self.silent:
            await reader.read()
        else:
            found = b"stream: Eicar-Test-Signature FOUND" if EICAR in whole else b"stream: OK"
            writer.write((found if self.answer is None else self.answer) + b"\0")
        writer.close()


@asynccontextmanager
async def daemon(folder: Path | None = None) -> AsyncIterator[Daemon]:
    one = Daemon()
    if folder is not None:
        one.address = str(folder / "clamd.sock")
        server = await asyncio.start_unix_server(one.serve, one.address)
    else:
        server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
        one.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield one
        for writer in one.writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def code_of(scanner: Clamd, data: bytes = PDF) -> str:
    with pytest.raises(Refusal) as no:
        await scanner.harmful(body(data))
    return no.value.code


async def test_what_the_scanner_finds_is_not_taken_and_nothing_of_it_is_kept(
    db: Database, clock: VirtualClock, ids: CountingIds
) -> None:
    album = Album(db, clock, ids)
    async with daemon() as clamd:
        media = album.process(scanner=Clamd(clamd.address))
        data = PDF + EICAR + bytes(100_000)
        with pytest.raises(Refusal, match="MEDIA_HARMFUL"):
            await media.upload(ANN, body(data, 1000), filename="a.pdf", length=len(data))
        assert clamd.seen == [data], "all of it was looked at"
        await album.settle(media, 7200)
        assert await album.kept() == (0, 0, 0)
        well = await media.upload(ANN, body(PDF), filename="a.pdf", length=len(PDF))
        assert well.size_bytes == len(PDF)


async def test_while_the_scanner_does_not_answer_nothing_is_taken(tmp_path: Path) -> None:
    async with daemon(tmp_path) as clamd:
        scanner = Clamd(clamd.address)
        assert not await scanner.harmful(body(PDF))
        clamd.silent = True
        assert await code_of(Clamd(clamd.address, scan_seconds=0.2)) == "SERVER_BUSY"
    assert await code_of(scanner) == "SERVER_BUSY", "it is not there"


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"INSTREAM size limit exceeded. ERROR", b"stream: OK FOUND ERROR", b"UNKNOWN COMMAND"),
        *(b"stream: ok", b"x" * 10_000),
    ],
)
async def test_an_answer_that_is_none_lets_nothing_through(answer: bytes) -> None:
    async with daemon() as clamd:
        clamd.answer = answer
        assert await code_of(Clamd(clamd.address)) == "SERVER_BUSY"


async def test_a_scanner_that_hangs_up_in_the_middle_of_a_file_lets_nothing_through() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield bytes(1000)
            await asyncio.sleep(0)  # a slow sender: what the other side does is seen between two pieces

    async with daemon() as clamd:
        clamd.full = True
        with pytest.raises(Refusal, match="SERVER_BUSY"):
            await Clamd(clamd.address).harmful(pieces())


async def test_too_many_at_once_are_asked_to_come_later() -> None:
    async with daemon() as clamd:
        scanner, held = Clamd(clamd.address), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x"
            await held.wait()

        waiting = [asyncio.create_task(scanner.harmful(slow())) for _ in range(AT_ONCE + WAITING_MAX)]
        await asyncio.sleep(0)
        assert await code_of(scanner) == "SERVER_BUSY"
        held.set()
        assert not any(await asyncio.gather(*waiting))
        assert not await scanner.harmful(body(PDF))


@pytest.mark.parametrize("address", ["clamd", "127.0.0.1:", "http://127.0.0.1:3310", "/run/x y"])
def test_an_address_that_is_none_is_a_fault(address: str) -> None:
    with pytest.raises(Exception, match="CLAMD is neither"):
        load_config({"CLAMD": address})
