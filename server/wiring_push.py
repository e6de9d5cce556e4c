"""Push put together: the senders that the configuration names, and the services over them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from models.auth.devices.store import DeviceStore
from models.db import Database
from models.notify.delivery import Delivery
from models.notify.invites.service import Invites
from models.notify.invites.store import InviteStore
from models.notify.messages.service import Focused, Messages
from models.notify.messages.store import BundleStore
from models.notify.ports import APNS_VOIP, EXPO, FCM, Sender
from models.notify.receipts.service import Receipts
from models.notify.receipts.store import ReceiptStore
from models.notify.rings.service import Rings
from models.notify.rings.store import RingStore
from models.notify.service import Pushes
from models.ports import Clock, Ids
from server.adapters.apns import ApnsSender
from server.adapters.credentials import ApnsKey
from server.adapters.expo import ExpoSender
from server.adapters.fcm import FcmSender
from server.backlogs import Queue
from server.config import Config
from server.metrics import count_push, count_receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredPush:
    """A process's pushes, and what has to be closed with it."""

    pushes: Pushes
    closes: Sequence[Callable[[], Awaitable[None]]]
    queues: Mapping[str, Queue]  # by the name that the metrics call them

    async def close(self) -> None:
        """Stop the threads and the connections."""
        for close in self.closes:
            await close()


def wire_push(
    config: Config,
    db: Database,
    *,
    still_rings: Callable[[str], Awaitable[bool]],
    focused: Focused,
    clock: Clock,
    ids: Ids,
    nudge: Callable[[], None],
) -> WiredPush:
    """Make it, once per process."""
    tokens, receipt_store = DeviceStore(db), ReceiptStore(db)
    ring_store, bundle_store, invite_store = RingStore(db), BundleStore(db), InviteStore(db)
    expo = ExpoSender(url=config.expo_url, access_token=config.expo_access_token, now=clock.now)
    senders: dict[str, Sender] = {EXPO: expo}
    closes = [expo.close]
    if config.fcm_account is not None:
        fcm = FcmSender(config.fcm_account, clock=clock, url=config.fcm_url)
        senders[FCM] = fcm
        closes.append(fcm.close)
    if config.apns_key is not None:
        assert config.apns_key_id, "the configuration has all of it, or none"
        assert config.apns_team_id
        assert config.apns_topic
        apns = ApnsSender(
            ApnsKey(key_id=config.apns_key_id, team_id=config.apns_team_id, key=config.apns_key),
            topic=config.apns_topic,
            clock=clock,
            sandbox=config.apns_sandbox,
            url=config.apns_url,
        )
        senders[APNS_VOIP] = apns
        closes.append(apns.close)
    delivery = Delivery(senders=senders, tokens=tokens, receipts=receipt_store, clock=clock, count=count_push)
    pushes = Pushes(
        rings=Rings(
            store=ring_store,
            tokens=tokens,
            delivery=delivery,
            still_rings=still_rings,
            clock=clock,
            ids=ids,
            nudge=nudge,
        ),
        messages=Messages(
            store=bundle_store,
            tokens=tokens,
            delivery=delivery,
            focused=focused,
            clock=clock,
            ids=ids,
        ),
        invites=Invites(
            store=invite_store, tokens=tokens, delivery=delivery, clock=clock, ids=ids, nudge=nudge
        ),
        receipts=Receipts(
            store=receipt_store,
            tokens=tokens,
            sources={EXPO: expo},
            clock=clock,
            ids=ids,
            count=count_receipt,
        ),
    )
    return WiredPush(
        pushes=pushes,
        closes=closes,
        queues={
            "pushes": ring_store,
            "message_pushes": bundle_store,
            "invite_pushes": invite_store,
            "push_receipts": receipt_store,
        },
    )
