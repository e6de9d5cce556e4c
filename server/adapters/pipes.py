"""Writing to who may be gone."""

from __future__ import annotations

from asyncio import StreamWriter


async def tell(writer: StreamWriter, data: bytes) -> None:
    """Write, and wait until most of it is taken. Raises ``ConnectionError`` where nobody reads any more.

    asyncio's own streams say so at the wait; uvloop's call it a fault of the program to write to what is closed.
    """
    if writer.is_closing():
        raise ConnectionResetError("the other side has closed")
    writer.write(data)
    await writer.drain()
