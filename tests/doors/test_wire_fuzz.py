"""Hostile payloads at the door of sockets: each event is answered exactly once, and nothing is kept of it.

Thousands here, of which hypothesis finds the smallest that shows a fault; ``make fuzz`` sends 200,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from server.wiring import catalogue
from tests.fuzz.payloads import BARE, BROKEN, EVENTS, HUGE, ODD, TRICKS, Sent, frames, text
from tests.fuzz.run import BATCH, Siege, siege

DRAWN_BATCHES, SEEDED_BATCHES = 20, 60
# Of some 3,000 frames. The server is cold at their beginning: pools, caches and the allocator's arenas grow as well.
GROWTH_MIB_MAX = 16.0


@pytest.fixture(scope="module")
def besieged(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """A server of its own, whose events are not counted."""
    with siege(tmp_path_factory.mktemp("siege"), mongo_uri=mongo_uri) as found:
        yield found
        found.end()


def send(besieged: Siege, some: list[Sent]) -> None:
    for start in range(0, len(some), BATCH):
        besieged.runner.run(besieged.attack.send(some[start : start + BATCH]))


def test_each_odd_piece_of_json_is_answered_wherever_it_stands(besieged: Siege) -> None:
    odd = [*ODD, *HUGE, *map(text, TRICKS)]
    send(besieged, [Sent("odd", "42", f'["CHAT_TYPING",{one}]') for one in odd])
    send(besieged, [Sent("odd", "42", f'["CHAT_TYPING",{{"to":{one}}}]') for one in odd])
    send(besieged, [Sent("odd", "42", f'["CHAT_TYPING",{{"to":"x",{text(name)}:1}}]') for name in TRICKS])
    send(besieged, [Sent("name", "42", f"[{text(name)},{{}}]") for name in TRICKS])


def test_each_body_that_is_no_json_is_answered(besieged: Siege) -> None:
    send(besieged, [Sent("broken body", "42", body) for body in BROKEN])


def test_each_frame_below_the_events_is_taken_or_ends_that_connection_and_no_other(besieged: Siege) -> None:
    send(besieged, [Sent("below the events", frame, bare=True) for frame in BARE])


def test_every_event_is_answered_with_any_number_of_arguments(besieged: Siege) -> None:
    for number in (0, 2, 3, 4, 50):
        args = "".join(",{}" for _ in range(number))
        send(besieged, [Sent(name, "42", f"[{text(name)}{args}]") for name in EVENTS])


def test_hypothesis_finds_no_frame_that_goes_without_its_one_answer(besieged: Siege) -> None:
    ids = dict(besieged.attack.ids)  # as they were: a frame that is tried again has to be the same one

    @settings(
        max_examples=DRAWN_BATCHES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=2 * BATCH))
    def look(seeds: list[int]) -> None:
        # Each frame from a number of its own, so that the fewest that show a fault together are found.
        send(besieged, [frames(Random(one), ids, 1, bare=True)[0] for one in seeds])

    look()


def test_thousands_of_frames_are_answered_and_the_memory_stays_as_it_was(besieged: Siege) -> None:
    besieged.look()
    chance = Random(1)
    for _ in range(SEEDED_BATCHES):
        besieged.batch(chance)
    besieged.end()
    assert besieged.memory[-1][1] - besieged.memory[0][1] < GROWTH_MIB_MAX
    assert set(catalogue.events) <= set(besieged.attack.by_event), "every event was among them"
