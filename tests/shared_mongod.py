"""The mongod that the tests of one worker share: the embedded one, without passwords.

To prove a password takes longer than most tests need for all they do, and each of them connects anew.
"""

from __future__ import annotations

from typing import Any

from pymongo import AsyncMongoClient

from server.mongod import SET_NAME, EmbeddedMongod


class SharedMongod(EmbeddedMongod):
    """Open to whoever is on this machine, for as long as the tests run. Started once, on an empty folder."""

    def _arguments(self, port: int) -> list[str]:
        words = super()._arguments(port)
        at = words.index("--keyFile")
        return words[:at] + words[at + 2 :]

    async def _open(self, port: int) -> None:
        host = f"127.0.0.1:{port}"
        config = {
            "_id": SET_NAME,
            "members": [{"_id": 0, "host": host}],
            "writeConcernMajorityJournalDefault": False,
        }
        async with AsyncMongoClient[dict[str, Any]](host, directConnection=True) as client:
            await client.admin.command("replSetInitiate", config)
            await self._be_primary(client, port)
        self.uri = f"mongodb://{host}/?replicaSet={SET_NAME}"
