"""No frame that a socket can carry stops the process, and none goes without an answer or a closed connection."""

from __future__ import annotations

import pytest

from server.packets import FRAME_MAX
from tests.doors.conftest import House
from tests.doors.wire import raw

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("still_serves"),
]


def bad_frames(to: str) -> list[tuple[str, str]]:
    """Socket.IO packets with ack id 7 that nobody's client writes, and the code each is refused with."""
    deep = "[" * 40 + "]" * 40
    request = f'"CALL_REQUEST",{{"to":"{to}","type":"audio","x":'
    return [
        (f"27[{request}NaN}}]", "BAD_JSON"),
        (f"27[{request}Infinity}}]", "BAD_JSON"),
        (f"27[{request}-Infinity}}]", "BAD_JSON"),
        (f"27[{request}1", "BAD_JSON"),
        ('27["CALL_SYNC",]', "BAD_JSON"),
        ('27["CALL_SYNC",{}]]', "BAD_JSON"),
        ("27[", "BAD_JSON"),
        ("27]", "BAD_JSON"),
        ('27\ufeff["CALL_SYNC"]', "BAD_JSON"),
        ('27x["CALL_SYNC"]', "BAD_JSON"),
        ("27[\"CALL_SYNC\",'x']", "BAD_JSON"),
        ('27["\\ud800"]', "BAD_JSON"),
        ('27["CALL_SYNC",{"x":"\\ud800"}]', "BAD_JSON"),
        (f'27["CALL_SYNC",{deep}]', "VALIDATION_FAILED"),
        ('27["CALL_SYNC",' + '{"a":' * 2000 + "1" + "}" * 2000 + "]", "VALIDATION_FAILED"),
        ("27[" * 1 + "[" * 20_000, "VALIDATION_FAILED"),
        ("27[]", "VALIDATION_FAILED"),
        ("27{}", "VALIDATION_FAILED"),
        ('27{"a":1}', "VALIDATION_FAILED"),
        ('27"CALL_SYNC"', "VALIDATION_FAILED"),
        ("27[7]", "VALIDATION_FAILED"),
        ("27[null,{}]", "VALIDATION_FAILED"),
        ('27[["CALL_SYNC"],{}]', "VALIDATION_FAILED"),
        ('27[{"CALL_SYNC":1}]', "VALIDATION_FAILED"),
        ("27[true]", "VALIDATION_FAILED"),
    ]


async def test_frames_that_are_no_good_json_are_refused_by_ack_and_the_connection_lives(house: House) -> None:
    bob = await house.person("bob")
    eve = await house.person("eve")
    async with raw(house, eve.token) as wire:
        for frame, code in bad_frames(bob.id):
            await wire.send_str("4" + frame)
            ack = await wire.ack(7)
            assert (ack["ok"], ack.get("error", {}).get("code")) == (False, code), frame[:60]
        await wire.send_str('427["CALL_SYNC",{}]')
        assert (await wire.ack(7))["ok"]


async def test_nothing_that_a_socket_can_carry_is_left_without_an_answer_or_stops_the_house(
    house: House,
) -> None:
    """Bad namespaces, acks for nothing, other packet types, numbers without end, frames of no protocol."""
    eve = await house.person("eve")
    harmless = [
        "40/admin,", '40/admin,{"token":"x"}', '42/,7["CALL_SYNC",{}]', "41/admin,", '43["nobody asked"]', "43",
        '4399999["nobody asked"]', '437{"x":1}', "3probe", "6", '46-7["binary ack"]', '451-7["CALL_SYNC"]', "450-7[]",
        "3", "5",
    ]  # fmt: skip
    # What the reference server closes a connection for: other things than Socket.IO, or things out of turn.
    deadly = [
        '42/admin,7["CALL_SYNC",{}]', "40", '40{"token":"forged"}', "44", '44{"message":"x"}', "42/" + "n" * 5000,
        "49[]", "4x", "4\x00", '42/a?b=c,7["CALL_SYNC"]', "4" + "1" * 3000, '40{"token":NaN}',
        "40[", "40{{{{", "4" + "0" * 3000, "41", "1",
    ]  # fmt: skip
    either = [
        "4", "42", "9", "45", "451-", "459999999-[]", '42999999999999999999999999["CALL_SYNC",{}]', "2",
        '451-["CALL_SYNC",{"_placeholder":true,"num":5}]', '42-1["CALL_SYNC"]', "4" + "2[" * 1000,
        "42[" + "9" * 5000 + "]",
    ]  # fmt: skip
    for frame in harmless + deadly + either:
        async with raw(house, eve.token) as wire:
            await wire.send_str(frame)
            await wire.send_str('428["CALL_SYNC",{}]')
            ack = await wire.ack(8, or_closed=True)
            assert ack is not None or frame not in harmless, frame[:60]
            assert ack is None or frame not in deadly, frame[:60]
    # The house is none the worse for any of it: `still_serves`.


async def test_binary_is_refused_by_ack(house: House) -> None:
    e = await (await house.person("eve")).phone()
    assert (await e.ack("CALL_SYNC", {"$bytes": 1000}))["error"]["code"] == "VALIDATION_FAILED"
    assert (await e.ack("NO_SUCH", {"x": {"$bytes": 5}}))["error"]["code"] in (
        "VALIDATION_FAILED",
        "EVENT_UNKNOWN",
    )
    eve = await house.person("eve")
    async with raw(house, eve.token) as wire:
        await wire.send_bytes(b"\x00\x01 a frame that no packet announced")
        await wire.send_str('428["CALL_SYNC",{}]')
        assert await wire.ack(8, or_closed=True) is None
    # Announced, half sent, then something else: the half is refused, and the line goes on.
    async with raw(house, eve.token) as wire:
        await wire.send_str('452-9["CALL_SYNC",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
        await wire.send_bytes(b"one of two")
        await wire.send_str('428["CALL_SYNC",{}]')
        assert (await wire.ack(9))["error"]["code"] == "VALIDATION_FAILED"
        assert (await wire.ack(8))["ok"]
    # More attachments than anybody has are not waited for.
    async with raw(house, eve.token) as wire:
        await wire.send_str('459999-9["CALL_SYNC"]')
        assert (await wire.ack(9))["error"]["code"] == "VALIDATION_FAILED"
        await wire.send_bytes(b"the first of them")
        assert await wire.message() is None


async def test_whoever_speaks_before_connecting_is_shown_out(house: House) -> None:
    for first in (
        '42["CALL_SYNC",{}]',
        '427["CALL_SYNC",{}]',
        '451-["CALL_SYNC",{"_placeholder":true,"num":0}]',
    ):
        async with raw(house, None) as wire:
            await wire.send_str(first)
            assert await wire.message() is None, first
    for harmless in ("41", '43["x"]', "3"):
        async with raw(house, None) as wire:
            await wire.send_str(harmless)
            await wire.send_str('40{"token":"none"}')
            assert await wire.refused_connect() == "TOKEN_INVALID"


async def test_ack_ids_of_any_size_come_back(house: House) -> None:
    eve = await house.person("eve")
    async with raw(house, eve.token) as wire:
        for number in (0, 1, 2**31, 2**53 - 1):
            await wire.send_str(f'42{number}["CALL_SYNC",{{}}]')
            assert (await wire.ack(number))["ok"]
        # The same id twice is two questions.
        await wire.send_str('425["CALL_SYNC",{}]')
        await wire.send_str('425["NO_SUCH"]')
        assert (await wire.ack(5))["ok"] is not (await wire.ack(5))["ok"]


@pytest.mark.parametrize(
    ("size", "code"),
    [(FRAME_MAX, None), (FRAME_MAX + 1, "PAYLOAD_TOO_LARGE"), (900_000, "PAYLOAD_TOO_LARGE")],
)
async def test_a_frame_may_have_128_kib_and_not_a_byte_more(
    house: House, size: int, code: str | None
) -> None:
    eve = await house.person("eve")
    async with raw(house, eve.token) as wire:
        frame = '27["CALL_SYNC",{"x":"%s"}]'
        await wire.send_str("4" + frame % ("x" * (size - len(frame) + 2)))
        ack = await wire.ack(7)
        assert ack.get("error", {}).get("code") == code
        # In bytes, not in characters.
        await wire.send_str("4" + frame % ("é" * ((size - len(frame) + 3) // 2)))
        assert (await wire.ack(7))["ok"] is (code is None)


async def test_a_frame_beyond_all_measure_closes_its_connection_and_no_other(house: House) -> None:
    eve = await house.person("eve")
    other = await (await house.person("bob")).phone()
    async with raw(house, eve.token) as wire:
        await wire.send_str('427["CALL_SYNC",{"x":"' + "x" * 3_000_000 + '"}]')
        assert await wire.ack(7, or_closed=True) is None
    await other.settled()
    async with raw(house, eve.token) as wire:
        await wire.send_str('427["CALL_SYNC",{}]')
        assert (await wire.ack(7))["ok"]
