"""The benchmark's own parts: frames, statistics, lanes of calls, the report. Nothing is timed here."""

from __future__ import annotations

import io
import math
import os
from collections import Counter
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from handlers.billing import ticks
from models.db import Database
from models.ledger.journal import Kind
from server.clock import SystemClock
from tests.bench import chat, money, presence, processes, renewals, report, targets
from tests.bench.cells import percent
from tests.bench.frames import TEXT, client_frame, connect_packet, event_packet, read_packet, server_frames
from tests.bench.inside import Inside
from tests.bench.machine import Watched, busy_seconds, stolen_seconds
from tests.bench.people import register
from tests.bench.phone import Phone, connect_all, now
from tests.bench.plan import Plan
from tests.bench.relay import sender
from tests.bench.stats import Round, arrivals, percentile, spread, summary
from tests.doors.conftest import open_house


def from_server(payload: bytes) -> bytes:
    """A frame as a server sends it: as a client's, without the mask."""
    framed = client_frame(payload)
    head = framed[: len(framed) - len(payload) - 4]
    return bytes([head[0], head[1] & 0x7F]) + head[2:] + payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_frame_of_any_size_is_read_back_whole(size: int) -> None:
    payload = b"x" * size
    buffer = bytearray(from_server(payload) * 2)
    assert list(server_frames(buffer)) == [(TEXT, payload)] * 2
    assert not buffer


def test_frames_that_come_in_pieces_wait_for_the_rest() -> None:
    whole = from_server(b"a" * 300) + from_server(b"b")
    buffer, got = bytearray(), []
    for at in range(len(whole)):
        buffer += whole[at : at + 1]
        got += [payload for _, payload in server_frames(buffer)]
    assert got == [b"a" * 300, b"b"]


def test_a_clients_frame_is_masked_with_zeros() -> None:
    assert client_frame(b"3") == b"\x81\x81\0\0\0\x003"


def test_packets_are_those_of_socket_io() -> None:
    assert connect_packet({"token": "t"}) == b'40{"token":"t"}'
    assert event_packet("CALL_SYNC", {}) == b'42["CALL_SYNC",{}]'
    assert event_packet("CALL_SYNC", {}, 12) == b'4212["CALL_SYNC",{}]'
    assert read_packet(b'42["SYNC",{"seq":0}]') == (b"2", None, ["SYNC", {"seq": 0}])
    assert read_packet(b'4312[{"ok":true}]') == (b"3", 12, [{"ok": True}])
    assert read_packet(b'40{"sid":"a"}') == (b"0", None, {"sid": "a"})


def test_a_relayed_message_differs_only_in_its_number() -> None:
    written: list[bytes] = []

    class Wire:
        write = staticmethod(written.append)

    one = sender(Wire(), "call-1", "frag")  # type: ignore[arg-type]
    one.send(7)
    one.send(123_456_789)
    assert len(written[0]) == len(written[1])
    texts = [next(server_frames(bytearray(_unmasked(frame))))[1] for frame in written]
    candidates = [read_packet(text)[2][1]["candidate"]["candidate"] for text in texts]
    assert candidates[0].startswith("candidate:000000007 ")
    assert candidates[1].startswith("candidate:123456789 ")


def _unmasked(frame: bytes) -> bytes:
    head = 2 if frame[1] & 0x7F < 126 else 4
    return bytes([frame[0], frame[1] & 0x7F]) + frame[2:head] + frame[head + 4 :]


def test_percentiles_are_samples() -> None:
    samples = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert percentile(samples, 0.5) == 3.0
    assert percentile(samples, 0.99) == 5.0
    assert percentile(samples, 0.0) == 1.0
    assert math.isnan(percentile([], 0.5))


def test_arrivals_are_even() -> None:
    assert list(arrivals(4, 1)) == [0, 0.25, 0.5, 0.75]


def test_a_summary_has_the_median_of_the_rounds_and_all_their_faults() -> None:
    rounds = [Round({"a": value}, Counter({"BUSY": 1})) for value in (3.0, 1.0, math.nan, 2.0)]
    made = summary(rounds)
    assert made["figures"] == {"a": {"median": 2.0, "least": 1.0, "most": 3.0}}
    assert made["faults"] == {"BUSY": 4}


async def test_a_paid_call_of_the_benchmark_is_settled_and_its_commands_are_counted(
    db: Database, tmp_path: Path
) -> None:
    here = Inside(db, tmp_path)
    town = await money.Town.build(here, 1)
    free, paid = [await town.commands(kind, 1) for kind in ("free", "paid")]
    assert free["steps"]["end"]["commitTransaction"] == 1.0
    assert paid["total"] > free["total"]
    here.posted.clear()
    times = money.Times()
    await money.Till(here).call("caller00000", "paid00000", times)
    kinds = {Kind.HOLD: 4, Kind.CAPTURE: 4, Kind.RELEASE: 1, Kind.SETTLE: 1}
    assert here.posted == kinds, "the first hold, three renewals, and the end"
    assert not times.faults
    await here.close()


async def test_the_live_calls_of_the_benchmark_are_renewed_evenly_and_then_together(
    db: Database, tmp_path: Path
) -> None:
    here = Inside(db, tmp_path)
    live = renewals.Live(here)
    await live.build(6, lambda share: None)
    assert live.due() == 1
    await live.line_up()
    live.skip()
    assert live.due() == 6
    assert await here.calls.run_renewals() == 6
    assert (len(live.took_ms), live.due(), len(here.calls.board)) == (12, 0, 6)
    live.begin()
    for _ in range(2):
        await ticks(here.services)
        here.clock.set(here.clock.now() + timedelta(seconds=5))
    assert len(live.tick_gaps_ms) == 6
    await here.close()


def nobody(share: float) -> None:
    """No bar is shown."""


async def test_the_messages_of_the_benchmark_come_at_once_or_by_catching_up(mongo_uri: str) -> None:
    plan = Plan(chat_rate=100, chat_seconds=0.1, missed=100)
    watched = Watched(os.getpid(), os.getpid())
    async with open_house(mongo_uri, clock=SystemClock()) as house:
        people = await register(house.url, "bench", 6, nobody)
        phones = [Phone(one) for one in people[:4]]
        await connect_all(phones, house.url, lambda: None)
        for talk in (chat.pairs(phones[:2], phones[2:]), await chat.group(house.url, phones)):
            for work in (
                chat.steady(talk, plan, watched, nobody),
                chat.flat_out(talk, 2, plan, watched, nobody),
            ):
                done = await work
                assert (done.faults, len(talk.messages) > 1) == ({}, True)
                assert all(one.acked and one.last and not one.left for one in talk.messages)
        assert chat.friends_needed(plan) == 2
        away, faults = await chat.be_away(house.url, people[5], people[3:5], plan, nobody)
        assert (away.count, faults) == (100, {})
        for _ in range(2):
            done = await chat.catch_up(away, watched, nobody)
            assert (done.figures["missed"], done.faults) == (100, {})


async def test_the_crowd_of_the_benchmark_is_told_of_what_lasts(mongo_uri: str) -> None:
    watched = Watched(os.getpid(), os.getpid())
    async with open_house(mongo_uri) as house:
        people = await register(house.url, "bench", 6, nobody)
        crowd = presence.Crowd([Phone(one) for one in people[:1]], [Phone(one) for one in people[1:]])
        await connect_all(list(crowd.watchers), house.url, lambda: None)
        await crowd.watch(nobody)
        done = await presence.arrivals(crowd, house.url, watched, nobody)
        assert (done.figures["notices"], done.faults) == (presence.WATCHERS_EACH, {})
        crowd.begin()
        for state in ("away", "online", "away"):
            crowd.say(0, state, now())
        while crowd.answered < 3:
            await house.db.ping()
        await house.services.presence.run_due()
        assert crowd.notices == 0
        house.clock.pass_(2)
        await crowd.settle(presence.WATCHERS_EACH)
        assert (crowd.notices, len(crowd.took_ms), crowd.faults) == (5, 5, {})


@pytest.mark.parametrize(
    ("server", "generator", "others", "said"),
    [
        (0.97, 0.3, 0.0, "the server was the bottleneck"),
        (0.5, 0.97, 0.0, "the generator was the bottleneck"),
        (0.5, 0.5, 0.0, "neither was full: waiting"),
        (0.5, 0.5, 0.9, "other programs took 90 % of a core away"),
        (math.nan, 1.0, 0.0, "no figures of CPU time"),
    ],
)
def test_the_report_says_what_the_bottleneck_was(
    server: float, generator: float, others: float, said: str
) -> None:
    shares = {"server_cpu_share": server, "generator_cpu_share": generator, "others_cpu_share": others}
    part = summary([Round({**shares, **spread("taken_ms", [1.0])}, Counter({"RATE_LIMITED": 2}))])
    rounds = {
        "calls": ("steady", "flat_out", "paid_steady", "paid_flat_out", "transactions"),
        "relay": ("steady", "flat_out"),
        "chat": ("steady", "flat_out", "group_flat_out", "catch_up"),
        "presence": ("arrivals", "changes", "flaps"),
        "logins": ("flat_out", "flood", "alike"),
        "live": ("real_rate", "burst"),
    }
    asked = {"steps": {step: {"find": 2.0} for step in ("request", "accept", "end")}, "total": 6.0}
    results = {
        "rest": {"first_start_s": 1, "later_start_s": 1, "server_mb": 1, "mongod_mb": 1, "idle_cpu_share": 0},
        **{title: dict.fromkeys(names, part) for title, names in rounds.items()},
        "money": dict.fromkeys(
            ("free", "paid", "many", "one", "renewals"),
            summary([Round({"retries_per_transaction": 0.02, **shares})]),
        ),
        "cut_offs": dict.fromkeys(("alone", "busy", "away"), summary([Round({"kept_share": 0.5})])),
        "commands": {"free": asked, "paid": asked},
    }
    out = io.StringIO()
    machine = {"processor": "[cpu]", "cores": 2, "python": "3"}
    about = {"machine": machine, "cores": "apart", "load_before": 0.0, "seconds": 1.0, "plan": asdict(Plan())}
    report.show(Console(file=out, width=200), about, results, ["a [warning]"] * 7)
    assert f"calls, flat out: server {percent(None if math.isnan(server) else server)}" in out.getvalue()
    assert said in out.getvalue()
    assert "0.0200 at most (money, free), NOT under 0.01" in out.getvalue()
    assert "cut-offs, away: 50 % told within 100 ms" in out.getvalue()
    assert "2 × RATE_LIMITED" in out.getvalue()
    assert "and 2 lines more" in out.getvalue()


def kept(figures: dict[str, float]) -> dict[str, object]:
    return summary([Round(figures)])


def test_the_report_says_which_targets_were_met() -> None:
    plan = asdict(Plan(pairs=500, live_calls=2000))
    results = {
        "calls": {"steady": kept({"set_up_ms_p99": 149.9}), "paid_steady": kept({"set_up_ms_p99": 150.0})},
        "live": {"real_rate": kept({"renewal_ms_p99": 30.0, "lag_ms_p99": 2.0})},
        "processes": {
            f"{count}_at_{rate}": kept(
                {
                    "processes": count,
                    "asked_per_s": rate,
                    "cpu_us_per_message": cpu,
                    "published_per_message": 1.0,
                    "woken_per_message": woken,
                }
            )
            for count, rate, cpu, woken in (
                (2, 200, 100.0, 1.0),
                (8, 200, 151.0, 1.0),
                (2, 2000, 100.0, 1.001),
                (4, 2000, 300.0, 1.5),
                (8, 2000, 150.0, 1.0),
                (2, processes.FLAT_OUT, 50.0, 1.0),
                (8, processes.FLAT_OUT, 80.0, 1.0),
            )
        },
    }
    assert list(targets.lines(results, plan)) == [
        "target: set-up of a free call, p99, 1000 phones: 149.9 ms, met (under 150 ms).",
        "target: set-up of a paid call, p99, 1000 phones: 150.0 ms, NOT met (under 150 ms).",
        "target: one renewal, p99, 2000 live paid calls: 30.0 ms, NOT met (under 25 ms).",
        "target: lag of the loop, p99, 2000 live paid calls: 2.0 ms, met (under 20 ms).",
        "target: CPU of all for a message, 8 processes beside 2, at 200/s: 1.51, NOT met (at most 1.5).",
        "target: CPU of all for a message, 8 processes beside 2, at 2000/s: 1.50, met (at most 1.5).",
        "target: CPU of all for a message, 8 processes beside 2, flat out: 1.60, NOT met (at most 1.5).",
        "target: a message is published: 1.000 to 1.000 times, met (once).",
        "target: a message is heard by other processes: 1.000 to 1.500 times, NOT met (once).",
    ]
    assert list(targets.lines({}, plan)) == []


@pytest.mark.parametrize(
    ("stolen", "said"),
    [
        (math.nan, "(under 25 ms)"),
        (0.02, "(under 25 ms)"),
        (0.055, "(under 25 ms; the host of this machine took 6 % of a core from it meanwhile)"),
    ],
)
def test_the_report_says_when_the_host_has_kept_the_processor_from_the_machine(
    stolen: float, said: str
) -> None:
    figures = {"renewal_ms_p99": 30.0, "stolen_cpu_share": stolen}
    (line,) = targets.lines({"live": {"real_rate": kept(figures)}}, asdict(Plan(live_calls=2000)))
    assert line == f"target: one renewal, p99, 2000 live paid calls: 30.0 ms, NOT met {said}."


def test_of_two_that_are_compared_the_one_from_which_more_was_kept_is_named() -> None:
    part = {
        f"{count}_at_200": kept(
            {
                "processes": count,
                "asked_per_s": 200.0,
                "cpu_us_per_message": 100.0 * count,
                "stolen_cpu_share": count / 40,
            }
        )
        for count in (2, 8)
    }
    (line,) = targets.lines({"processes": part}, asdict(Plan()))
    assert line.endswith(
        "4.00, NOT met (at most 1.5; the host of this machine took 20 % of a core from it meanwhile)."
    )


def test_what_the_host_has_kept_is_a_part_of_what_the_cores_were_busy() -> None:
    counted = Path("/proc/stat").exists()
    stolen, busy = stolen_seconds(), busy_seconds()
    assert (math.isnan(stolen), math.isnan(busy)) == (not counted,) * 2
    assert not counted or 0 <= stolen < busy
