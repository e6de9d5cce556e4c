"""Messages: sent → stored and acked → on the phones of the others; between pairs, and in one busy group.

A message is acked once it is durable, so the ack's time has the commit in it. Open loop: messages are due on schedule
and timed from the scheduled moment. Flat out: a number of messages on their way at the same time, each followed by
the next. Every receiver checks that the numbers of a conversation only rise.

Catch-up: a phone is away while others write to it, and then connects with ``since``; each round catches up on the
same messages again. All have to come, in order and once, without ``gap``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.bench.machine import Watched
from tests.bench.people import Person
from tests.bench.phone import Phone, connect_all, now
from tests.bench.plan import Plan, Told
from tests.bench.stats import Round, arrivals, spread

STRAGGLERS_SECONDS = 10.0
# What people write is short.
TEXT = "Shall we meet at the station at half past six, or is later better for you? "
# Messages to a phone that is away, on their way at the same time; what writes them is not measured.
WRITING_AT_ONCE = 32
# CONTRACT §1: of its burst of 100 a phone keeps some for its connect.
WRITTEN_BY_EACH = 90


@dataclass(slots=True, eq=False)
class Message:
    """One message from its scheduled moment; ``left`` receivers do not have it yet."""

    due: float
    left: int
    done: asyncio.Future[None]
    acked: float = 0.0
    first: float = 0.0
    last: float = 0.0
    fault: str | None = None

    def settle(self) -> None:
        """Finish once it is acked and everybody has it, or when it is refused."""
        if (self.fault or (self.acked and not self.left)) and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True)
class Talk:
    """Phones that write to one another. ``address(number)`` says who writes message ``number`` and where it goes."""

    phones: Sequence[Phone]
    address: Callable[[int], tuple[Phone, dict[str, Any]]]
    receivers: int
    title: str
    messages: list[Message] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    written: int = 0
    _newest: dict[tuple[str, str], int] = field(default_factory=dict)
    _round: int = 0

    def begin(self) -> None:
        """Forget the round before, and hear from now on."""
        self._round += 1
        self.messages.clear()
        self.faults.clear()
        for phone in self.phones:
            phone.on_event = self._heard

    def write(self, due: float) -> Message:
        """Send the next message, due at a moment."""
        message = Message(due, self.receivers, asyncio.get_running_loop().create_future())
        number, self.written = self.written, self.written + 1
        sender, to = self.address(number)
        mark = f"{self._round}:{len(self.messages)}"
        self.messages.append(message)

        def acked(ack: dict[str, Any], at: float) -> None:
            if ack["ok"]:
                message.acked = at
            else:
                message.fault = ack["error"]["code"]
            message.settle()

        ask = {**to, "text": f"{mark} {TEXT}", "opId": f"{self.title}-{number}"}
        sender.emit("CHAT_MESSAGE", ask, acked)
        return message

    def _heard(self, phone: Phone, name: str, payload: dict[str, Any], at: float) -> None:
        if name != "CHAT_MESSAGE":
            return
        place = (phone.user_id, payload["conversationId"])
        if payload["seq"] <= self._newest.get(place, 0):
            self.faults["not in order"] += 1
        self._newest[place] = payload["seq"]
        round_, _, number = payload["text"].partition(" ")[0].partition(":")
        if int(round_) != self._round:
            return
        message = self.messages[int(number)]
        message.left -= 1
        message.first, message.last = message.first or at, at
        message.settle()

    async def stragglers(self) -> None:
        """Wait for what is on its way."""
        if self.messages:
            await asyncio.wait([one.done for one in self.messages], timeout=STRAGGLERS_SECONDS)

    def times(self) -> dict[str, float]:
        """p50 and p99 of the ack, of the first and of the last receiver, in ms."""
        good = [one for one in self.messages if not one.fault]
        return {
            **spread("acked_ms", [(one.acked - one.due) * 1000 for one in good if one.acked]),
            **spread("delivered_ms", [(one.first - one.due) * 1000 for one in good if one.first]),
            **spread("all_delivered_ms", [(one.last - one.due) * 1000 for one in good if not one.left]),
        }

    def problems(self) -> Counter[str]:
        """What went wrong, by name."""
        refused = Counter(one.fault for one in self.messages if one.fault)
        late = Counter("not through" for one in self.messages if not one.done.done())
        return refused + late + self.faults


def pairs(writers: Sequence[Phone], readers: Sequence[Phone]) -> Talk:
    """One-to-one: the pairs take turns, and both sides write."""

    def address(number: int) -> tuple[Phone, dict[str, Any]]:
        turn, pair = divmod(number, len(writers))
        ends = (writers[pair], readers[pair])
        return ends[turn % 2], {"to": ends[1 - turn % 2].user_id}

    return Talk([*writers, *readers], address, 1, "pairs")


async def group(url: str, phones: Sequence[Phone]) -> Talk:
    """One group of all these phones, who take turns to write."""
    body = {"name": "Everybody", "memberIds": [phone.user_id for phone in phones[1:]]}
    head = {"Authorization": f"Bearer {phones[0].person.token}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/api/chat/groups", json=body, headers=head) as answer,
    ):
        said = await answer.json()
        if answer.status != 201:
            raise RuntimeError(f"group: {answer.status} {said}")
    to = {"conversationId": said["conversation"]["id"]}
    return Talk(phones, lambda number: (phones[number % len(phones)], to), len(phones) - 1, "group")


async def steady(talk: Talk, plan: Plan, watched: Watched, told: Told) -> Round:
    """One round at ``chat_rate``."""
    talk.begin()
    meter, start = watched.meter(), now() + 0.01
    for offset in arrivals(plan.chat_rate, plan.chat_seconds):
        if (due := start + offset) > now():
            await asyncio.sleep(due - now())
        talk.write(due)
        told(offset / plan.chat_seconds)
    spent = meter.read()
    await talk.stragglers()
    return Round({"asked_per_s": plan.chat_rate, **talk.times(), **spent.shares()}, talk.problems())


async def flat_out(talk: Talk, at_once: int, plan: Plan, watched: Watched, told: Told) -> Round:
    """One round of ``at_once`` messages at a time, each counted when everybody has it."""
    talk.begin()
    meter, start = watched.meter(), now()

    async def line() -> None:
        while (passed := now() - start) < plan.chat_seconds:
            told(passed / plan.chat_seconds)
            await asyncio.wait([talk.write(now()).done], timeout=STRAGGLERS_SECONDS)

    await asyncio.gather(*(line() for _ in range(at_once)))
    spent = meter.read()
    good = sum(1 for one in talk.messages if one.done.done() and not one.fault)
    figures = {
        "messages_per_s": good / spent.seconds,
        "deliveries_per_s": good * talk.receivers / spent.seconds,
        "server_cpu_ms_per_message": spent.server / good * 1000 if good else float("nan"),
        **talk.times(),
        **spent.shares(),
    }
    return Round(figures, talk.problems())


# ------------------------------------------------------------------------------------------------------------ catch-up


@dataclass(slots=True)
class Away:
    """A person whose phone was away from number ``since`` of its log on, while ``count`` messages came."""

    url: str
    person: Person
    since: int
    count: int


async def be_away(
    url: str, person: Person, friends: Sequence[Person], plan: Plan, told: Told
) -> tuple[Away, Counter[str]]:
    """The person's phone connects once and hangs up; then ``friends`` write ``plan.missed`` messages to it."""
    phone = Phone(person)
    numbers: list[int] = []
    phone.on_event = lambda _, name, payload, at: numbers.append(payload["seq"]) if name == "SYNC" else None
    await phone.connect(url)
    phone.close()
    phones = [Phone(one) for one in friends]
    await connect_all(phones, url, lambda: None)
    talk = Talk(phones, lambda n: (phones[n // WRITTEN_BY_EACH], {"to": person.user_id}), 0, "missed")
    talk.begin()

    async def line() -> None:
        while talk.written < plan.missed:
            told(talk.written / plan.missed)
            await asyncio.wait([talk.write(now()).done], timeout=STRAGGLERS_SECONDS)

    await asyncio.gather(*(line() for _ in range(WRITING_AT_ONCE)))
    for phone in phones:
        phone.close()
    return Away(url, person, numbers[-1], len(talk.messages)), talk.problems()


def friends_needed(plan: Plan) -> int:
    """How many have to write what is missed, each within a phone's burst."""
    return -(-plan.missed // WRITTEN_BY_EACH)


async def catch_up(away: Away, watched: Watched, told: Told) -> Round:
    """The phone comes back with ``since``: until ``SYNC``, the first and the last missed message."""
    phone, all_there = Phone(away.person, since=away.since), asyncio.Event()
    came: list[int] = []
    times: list[float] = []
    faults: Counter[str] = Counter()

    def heard(_: Phone, name: str, payload: dict[str, Any], at: float) -> None:
        if name == "SYNC":
            faults.update({"gap": 1} if payload["gap"] else {})
            times.append(at)
        elif name == "CHAT_MESSAGE":
            came.append(payload["logSeq"])
            times.append(at)
            if len(came) == away.count:
                all_there.set()

    phone.on_event = heard
    meter, start = watched.meter(), now()
    await phone.connect(away.url)
    while not all_there.is_set() and now() - start < 6 * STRAGGLERS_SECONDS:
        told(len(came) / away.count)
        try:
            await asyncio.wait_for(all_there.wait(), 0.1)
        except TimeoutError:
            continue
    spent = meter.read()
    phone.close()
    faults += Counter({"missing": away.count - len(came)} if len(came) < away.count else {})
    if came != sorted(set(came)):
        faults["not in order"] += 1
    figures = {
        "missed": float(away.count),
        "sync_ms": (times[0] - start) * 1000,
        "first_ms": (times[min(1, len(times) - 1)] - start) * 1000,
        "last_s": times[-1] - start,
        "messages_per_s": len(came) / (times[-1] - start),
        "server_cpu_us_per_message": spent.server / max(1, len(came)) * 1e6,
        **spent.shares(),
    }
    return Round(figures, faults)
