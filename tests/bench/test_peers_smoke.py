"""The comparison with other servers, in small: every contender relays and is measured. Nothing is timed here."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from server import app
from tests.bench.flames import draw
from tests.bench.machine import ROOT, Cores, describe
from tests.bench.peers import bare, report, rounds
from tests.bench.peers.__main__ import told_of
from tests.bench.peers.contenders import NAMES, NODE_SERVER, contenders
from tests.bench.peers.plan import Plan
from tests.bench.profile.__main__ import plain
from tests.bench.stats import Round

PLAN = Plan(
    rounds=1,
    pairs=2,
    rates=(100,),
    steady_seconds=0.1,
    flood_seconds=0.1,
    flood_each=10,
    warm_seconds=0.05,
    idle=10,
    idle_seconds=0.1,
    settle_seconds=0.1,
)


def anywhere() -> Cores:
    cores = Cores()
    cores.server = cores.rest = None
    return cores


@pytest.mark.parametrize("name", NAMES)
async def test_a_contender_relays_all_that_it_is_given(name: str, mongo_uri: str, tmp_path: Path) -> None:
    if name == "node" and not (shutil.which("node") and NODE_SERVER.exists()):
        pytest.skip("node or its socket.io is not installed")
    cores = anywhere()
    (one,) = contenders(cores, tmp_path, mongo_uri, [name])
    made = await rounds.relay(one, PLAN, cores, lambda share: None)
    assert set(made) == {"at_100", "flat_out", *(["acked"] if one.acks else [])}
    assert [done.faults for done in made.values()] == [{}] * len(made)
    # The clock of a process that is not switched stands between the scheduler's ticks: a flood as small as this one
    # may cost a quick server less than one. Where it sleeps between messages, all is counted.
    assert made["at_100"].figures["cpu_us"] > 0
    assert all(done.figures["cpu_us"] >= 0 for done in made.values())  # NaN, no clock, is not
    assert made["at_100"].figures["taken_us_p50"] > 0
    assert 240 <= made["flat_out"].figures["frame_bytes"] <= 340
    if name == "node":  # which starts soonest
        idle = (await rounds.idle(one, PLAN, cores, lambda share: None))["idle"]
        assert (idle.faults, idle.figures["connections"]) == ({}, 10)
        assert idle.figures["connect_us"] > 0


def test_the_report_says_what_was_met_and_what_was_no_limit_of_the_server() -> None:
    def done(cpu: float, server: float = 1.0) -> Round:
        shares = {"server_share": server, "generator_share": 0.5, "others_share": 0.0}
        return Round({"cpu_us": cpu, "messages_per_s": 1e6 / cpu, **shares})

    def steady(p99: float) -> Round:
        return Round({"cpu_us": 9.0, "taken_us_p50": 50.0, "taken_us_p99": p99, "late_us_p99": 5.0})

    results = {
        "ringmeter": {"flat_out": told_of([done(8.0)]), "at_2000": told_of([steady(100)])},
        "node": {"flat_out": told_of([done(14.0)]), "at_2000": told_of([steady(90)])},
        "aiohttp": {"flat_out": told_of([done(5.0, server=0.6)]), "at_2000": told_of([steady(110)])},
    }
    titles = dict(zip(results, ("ours", "Node", "bare"), strict=True))
    about = {
        "machine": describe(),
        "cores": "apart",
        "load_before": 0.0,
        "seconds": 1.0,
        "plan": {"rates": [2000]},
        "titles": titles,
    }
    out = io.StringIO()
    report.show(Console(file=out, width=200), about, results, [])
    said = out.getvalue()
    assert "met    CPU per message, flat out, of Node's: 0.57" in said
    assert "MISSED CPU per message, flat out, of bare aiohttp's: 1.60" in said
    assert "MISSED p99 at 2,000/s, of Node's: 1.11" in said
    assert "bare, flat out, round 1: server 60 % of its core" in said
    assert said.count("NOT the server's limit") == 1
    assert report.picture(about, results).count("<rect") == 4


def test_the_bare_server_collects_garbage_as_this_one_does() -> None:
    assert bare.GC_THRESHOLDS == app.GC_THRESHOLDS


def test_a_round_in_doubt_does_not_count_where_another_is_not() -> None:
    good, bad = (
        {"cpu_us": cpu, "server_share": 1.0, "generator_share": own} for cpu, own in ((8.0, 0.5), (9.0, 0.95))
    )
    made = told_of([Round(good), Round(bad)])
    assert made["figures"]["cpu_us"]["median"] == 8.0
    assert made["doubts"] == [None, "server 100 % of its core, generator 95 %: NOT the server's limit"]
    assert told_of([Round(bad)])["figures"]["cpu_us"]["median"] == 9.0


def test_a_flame_graph_shows_functions_that_work_and_where_they_are() -> None:
    raw = "\n".join(
        f"0x7f12 (libc.so.6);<module> (main.py:1);Runner.run (/usr/lib/python3.11/asyncio/runners.py:5){rest}"
        for rest in (
            f";Wire.text ({ROOT}/server/engine.py:7);Py_DECREF (object.h:1);write (libc.so.6) 60",
            f";Wire.text ({ROOT}/server/engine.py:9);write (libc.so.6) 30",
            ";feed (/x/site-packages/aiohttp/reader.py:3);feed (/x/site-packages/aiohttp/reader.py:4) 10",
            ";uv__io_poll (linux.c:3);epoll_pwait (libc.so.6) 500",
        )
    )
    stacks = plain(raw)
    assert (
        stacks.splitlines()[2]
        == "<module> (main.py);Runner.run (asyncio/runners.py);feed (aiohttp/reader.py) 10"
    )
    picture = draw(stacks, "A & B")
    assert "A &amp; B" in picture
    assert "100 samples" in picture
    assert "<title>Wire.text (server/engine.py): 90.0%</title>" in picture
    assert "epoll" not in picture
    assert str(ROOT) not in picture
    assert draw("", "nothing").count("<g>") == 0
