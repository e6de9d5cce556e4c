"""Which tariff a call has: the callee's own rate, or the platform's."""

from __future__ import annotations

from dataclasses import dataclass

from models.calls import tariff
from models.calls.call import Party, Price


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariffs:
    """The platform's prices; money in minor units of ``currency``. ``video_rate_minor`` None: as audio."""

    currency: str = "NGN"
    rate_minor: int = 1000
    video_rate_minor: int | None = None
    first_block_seconds: int = 60
    block_seconds: int = 60
    minimum_minor: int = 1000
    connect_fee_minor: int = 0

    def quote(self, callee: Party, call_type: str, *, follows: bool = False) -> Price:
        """The tariff for a call to ``callee``; ``follows``: for a part that follows another of the same call.

        The callee's own rate wins (for video the one for video, else the one for audio), in the callee's currency.
        The platform's fee and minimum are amounts of its own currency and go with calls in that only. A rate of 0 is
        a free call, whatever the fee.
        """
        own = callee.rate_per_minute_minor
        platform = self.rate_minor
        if call_type == "video":
            own = (
                callee.video_rate_per_minute_minor if callee.video_rate_per_minute_minor is not None else own
            )
            platform = self.video_rate_minor if self.video_rate_minor is not None else platform
        rate, currency = (platform, self.currency) if own is None else (own, callee.currency)
        ours = currency == self.currency and rate > 0
        price = Price(
            rate_per_minute_minor=rate,
            currency=currency,
            first_block_seconds=self.first_block_seconds,
            block_seconds=self.block_seconds,
            connect_fee_minor=self.connect_fee_minor if ours else 0,
            minimum_minor=self.minimum_minor if ours else 0,
        )
        return tariff.following(price) if follows else price
