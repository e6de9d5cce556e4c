"""Addresses that are kept out (``models.blocks``): networks, ends, growth, and what is never blocked."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from models.blocks.rules import network_of
from models.blocks.service import Blocks
from models.blocks.store import BlockStore
from models.db import Database
from models.errors import Refusal
from models.trail.rules import Actor
from models.trail.service import Trail
from models.trail.store import TrailStore
from server.gate import STRIKES_SECONDS, Strikes
from tests.fakes import VirtualClock

HOUR = timedelta(hours=1)
BY = Actor.operator("root")


@pytest.fixture
def trail(db: Database, clock: VirtualClock) -> Trail:
    return Trail(store=TrailStore(db), clock=clock)


def process(db: Database, clock: VirtualClock) -> Blocks:
    return Blocks(store=BlockStore(db), trail=Trail(store=TrailStore(db), clock=clock), clock=clock)


@pytest.mark.parametrize(
    ("address", "whole"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not an address", "not an address"),
        ("", ""),
        ("x" * 500, "x" * 64),
    ],
)
def test_an_address_stands_for_itself_or_its_64_bits(address: str, whole: str) -> None:
    assert network_of(address) == whole


@pytest.mark.parametrize(
    ("network", "kept", "in_it", "outside"),
    [
        ("203.0.113.7", "203.0.113.7/32", "203.0.113.7", "203.0.113.8"),
        (" 203.0.113.77/24 ", "203.0.113.0/24", "203.0.113.1", "203.0.114.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1:2:ffff::1", "2001:db8:1:3::1"),
        ("2001:db8::/32", "2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
    ],
)
async def test_a_network_is_kept_out_until_its_end_at_every_process(
    db: Database, clock: VirtualClock, trail: Trail, network: str, kept: str, in_it: str, outside: str
) -> None:
    here, there = process(db, clock), process(db, clock)
    assert not await there.refresh()
    made = await here.add(network, lasts=HOUR, by=BY, reason="floods")
    assert (made.network, made.by, made.reason) == (kept, "root", "floods")
    assert await there.refresh()
    assert not await there.refresh(), "nothing new"
    for blocks in (here, there):
        assert blocks.board.until(in_it, clock.now()) == made.until
        assert blocks.board.until(outside, clock.now()) is None
        assert blocks.board.until("", clock.now()) is None
    clock.pass_(3599.999)
    assert there.board.until(in_it, clock.now()) == made.until
    clock.pass_(0.001)
    assert there.board.until(in_it, clock.now()) is None
    await there.refresh()
    assert len(there.board) == 0
    assert await here.all() == []


async def test_a_block_that_is_taken_back_ends_everywhere_and_both_acts_are_in_the_trail(
    db: Database, clock: VirtualClock, trail: Trail
) -> None:
    here, there = process(db, clock), process(db, clock)
    await here.add("203.0.113.0/24", lasts=HOUR, by=BY, reason="floods")
    await there.refresh()
    clock.pass_(10)
    assert await here.remove("203.0.113.0/24", by=BY, reason="a mistake")
    assert not await here.remove("203.0.113.0/24", by=BY, reason="a mistake"), "it is not kept out any more"
    await there.refresh()
    for blocks in (here, there, process(db, clock)):
        await blocks.refresh()
        assert blocks.board.until("203.0.113.1", clock.now()) is None
    rows = (await trail.search()).rows
    assert [(row.act, row.target.id, row.reason) for row in rows] == [
        ("address.unblock", "203.0.113.0/24", "a mistake"),
        ("address.block", "203.0.113.0/24", "floods"),
    ]
    assert (await trail.verify()).ok


@pytest.mark.parametrize(
    "network",
    [
        "",
        "x",
        "300.1.1.1",
        "0.0.0.0/0",
        "203.0.0.0/7",
        "::/0",
        "2001::/16",
        "127.0.0.1",
        "127.0.0.0/8",
        "::1",
        "203.0.113.0/33",
    ],
)
async def test_what_is_no_network_or_too_much_of_one_is_refused(
    db: Database, clock: VirtualClock, trail: Trail, network: str
) -> None:
    blocks = process(db, clock)
    with pytest.raises(Refusal) as no:
        await blocks.add(network, lasts=HOUR, by=BY, reason="floods")
    assert (no.value.code, list(no.value.details)) == ("VALIDATION_FAILED", ["network"])
    assert (await trail.search()).rows == ()


async def test_automatic_blocks_grow_and_after_a_week_of_peace_begin_anew(
    db: Database, clock: VirtualClock
) -> None:
    blocks = process(db, clock)
    for seconds in (600, 3600, 6 * 3600, 86_400, 86_400):
        made = await blocks.add_automatic("2001:db8::1")
        assert made is not None
        assert (made.network, made.until - clock.now()) == ("2001:db8::/64", timedelta(seconds=seconds))
        assert await blocks.add_automatic("2001:db8::2") is None, "it is blocked already"
        clock.pass_(seconds)
    # What MongoDB throws away by its own clock a week later.
    await db["address_blocks"].delete_many({"purge_at": {"$lte": clock.pass_(7 * 86_400)}})
    again = await blocks.add_automatic("2001:db8::1")
    assert again is not None
    assert again.until - clock.now() == timedelta(minutes=10)


async def test_of_many_processes_that_block_at_once_one_does(db: Database, clock: VirtualClock) -> None:
    made = await asyncio.gather(*(process(db, clock).add_automatic("203.0.113.7") for _ in range(8)))
    assert len([one for one in made if one is not None]) == 1
    assert [(one.times, one.by) for one in await process(db, clock).all()] == [(1, "server")]


async def test_a_block_that_somebody_has_made_is_not_shortened_by_an_automatic_one(
    db: Database, clock: VirtualClock
) -> None:
    blocks = process(db, clock)
    made = await blocks.add("203.0.113.7", lasts=timedelta(days=30), by=BY, reason="floods")
    assert await blocks.add_automatic("203.0.113.7") is None
    (kept,) = await blocks.all()
    assert (kept.until, kept.by) == (made.until, "root")


async def test_of_blocks_that_overlap_the_longest_counts_and_none_hides_another(
    db: Database, clock: VirtualClock
) -> None:
    blocks = process(db, clock)
    short = await blocks.add_automatic("203.0.113.7")
    assert short is not None
    assert blocks.board.until("203.0.113.7", clock.now(), stranger=False) is None
    wide = await blocks.add("203.0.113.0/24", lasts=HOUR, by=BY, reason="floods")
    for stranger in (True, False):
        assert blocks.board.until("203.0.113.7", clock.now(), stranger=stranger) == wide.until
    clock.pass_((short.until - clock.now()).total_seconds())
    assert blocks.board.until("203.0.113.7", clock.now()) == wide.until, "the short one is over"


async def test_sockets_are_looked_at_for_a_block_that_somebody_makes_and_for_no_other(
    db: Database, clock: VirtualClock
) -> None:
    here, there = process(db, clock), process(db, clock)
    await here.add_automatic("203.0.113.7")
    assert not await here.refresh()
    assert not await there.refresh(), "it is for strangers, and sockets have none"
    await here.add("203.0.113.7", lasts=HOUR, by=BY, reason="meant for all")
    for blocks in (here, there):
        assert await blocks.refresh(), "also where it was kept out by itself, and where somebody has done it"
        assert not await blocks.refresh()
    clock.pass_(3_600)
    await here.add("203.0.113.7", lasts=HOUR, by=BY, reason="once more")
    assert await there.refresh(), "the one before was over"
    assert await here.refresh()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "10.1.2.3",
        "172.17.0.1",
        "192.168.1.9",
        "169.254.1.1",
        "100.64.0.9",
        "fd00::1",
        "fe80::1",
        "::ffff:10.0.0.1",
        "",
        "unix",
    ],
)
async def test_this_machine_and_private_networks_are_never_blocked_by_themselves(
    db: Database, clock: VirtualClock, address: str
) -> None:
    assert await process(db, clock).add_automatic(address) is None
    strikes = Strikes(1, connected=lambda _: 0, clock=clock)
    assert not any(strikes.add(address) for _ in range(10))


def test_it_takes_more_where_more_devices_are_connected_and_old_refusals_are_forgotten(
    clock: VirtualClock,
) -> None:
    there = {"203.0.113.7": 2}
    strikes = Strikes(10, connected=lambda address: there.get(address, 0), clock=clock)
    assert [strikes.add("203.0.113.1") for _ in range(20)] == ([False] * 9 + [True]) * 2
    assert [strikes.add("203.0.113.7") for _ in range(30)] == [False] * 29 + [True]
    # Of a /64 all addresses are one.
    assert [strikes.add(f"2001:db8::{number:x}") for number in range(10)] == [False] * 9 + [True]
    assert not any(strikes.add("203.0.113.2") for _ in range(9))
    clock.pass_(STRIKES_SECONDS)
    assert not any(strikes.add("203.0.113.2") for _ in range(9))
    never = Strikes(0, connected=lambda _: 0, clock=clock)
    assert not any(never.add("203.0.113.1") for _ in range(1000))
