"""Files, wired: where their bytes are, who looks at pictures, who says who may see them."""

from __future__ import annotations

from dataclasses import dataclass

from models.db import Database
from models.media.audience.store import MessageFiles
from models.media.files.store import GridFiles
from models.media.links import Links
from models.media.service import MediaFiles, Room
from models.media.store import MediaStore
from models.ports import Clock, Ids
from models.users.service import Users
from server.adapters.clamd import Clamd
from server.adapters.images import Images
from server.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredMedia:
    """The service of files, and the programs that decode images, which have to be closed."""

    files: MediaFiles
    images: Images

    async def close(self) -> None:
        """End the programs."""
        await self.images.close()


def wire_media(config: Config, db: Database, *, users: Users, clock: Clock, ids: Ids) -> WiredMedia:
    """Make everything about files, once per process."""
    assert config.jwt_secret is not None, "the config has been completed"
    images = Images()
    files = MediaFiles(
        store=MediaStore(db),
        files=GridFiles(db),
        pictures=images,
        audience=MessageFiles(db),
        viewers=users,
        links=Links(config.jwt_secret),
        room=Room(config.media_bytes_max, config.media_user_bytes_max),
        clock=clock,
        ids=ids,
        scanner=Clamd(config.clamd) if config.clamd else None,
    )
    return WiredMedia(files=files, images=images)
