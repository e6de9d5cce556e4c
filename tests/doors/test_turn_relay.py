"""coturn with the server's secret: the credentials of ``GET /api/ice-servers`` open it, and no others do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.processes import free_port
from tests.doors.browser import chromium
from tests.doors.pyphone import PyPhone
from tests.doors.serverprocess import ServerProcess, lodging_now, program, running

SECRET = "shared by the server and coturn"
CLIENT_SECONDS_MAX = 30.0


@dataclass(frozen=True)
class Relay:
    """A coturn on loopback and a server that hands out credentials for it."""

    server: ServerProcess
    port: int
    client: str

    def allocate(self, username: str, credential: str) -> bool:
        """Whether an allocation is made, and carries messages between two clients that both went through it."""
        done = subprocess.run(
            # -y: two clients that talk to each other through the relay; -c: no RTCP; -n: one message each
            [
                self.client,
                "-y",
                "-c",
                "-n",
                "1",
                "-u",
                username,
                "-w",
                credential,
                "-p",
                str(self.port),
                "127.0.0.1",
            ],
            capture_output=True,
            text=True,
            timeout=CLIENT_SECONDS_MAX,
            check=False,
        )
        if done.returncode == 0:
            assert "Total lost packets 0" in done.stdout + done.stderr
            return True
        assert "Cannot complete Allocation" in done.stdout + done.stderr
        return False


def password(username: str, secret: str = SECRET) -> str:
    """draft-uberti-behave-turn-rest-00 §2.2, worked out once more: not by what is tested."""
    return base64.b64encode(hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()).decode()


@pytest.fixture(scope="module")
def relay(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    binary, client = program("turnserver", "coturn"), program("turnutils_uclient", "coturn")
    folder: Path = tmp_path_factory.mktemp("turn")
    port = free_port()
    coturn = subprocess.Popen(
        [
            *(binary, "-n", "--realm=ringmeter.test", "--use-auth-secret", f"--static-auth-secret={SECRET}"),
            *("--listening-ip=127.0.0.1", f"--listening-port={port}", "--relay-ip=127.0.0.1"),
            *("--min-port=30000", "--max-port=32000", "--allow-loopback-peers"),
            *("--no-tls", "--no-dtls", "--no-cli", "--log-file=stdout", "--simple-log"),
            *(f"--pidfile={folder / 'pid'}", f"--userdb={folder / 'db'}"),
        ],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(coturn, port)
        urls = f"turn:127.0.0.1:{port}?transport=udp,turn:127.0.0.1:{port}?transport=tcp"
        where = {"mongo_uri": mongo_uri, "TURN_URLS": urls, "TURN_SECRET": SECRET}
        with (
            lodging_now(mongo_uri) as database,
            running(folder / "server", database=database, **where) as server,
        ):
            yield Relay(server, port, client)
    finally:
        coturn.terminate()
        coturn.wait(10)


def _wait_for(coturn: subprocess.Popen[bytes], port: int) -> None:
    """Until it answers a STUN Binding request (RFC 8489 §5)."""
    ask = bytes.fromhex("000100002112a442") + b"ringmeter-01"
    until = time.monotonic() + 20
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.2)
        while time.monotonic() < until:
            assert coturn.poll() is None, "coturn has ended"
            probe.sendto(ask, ("127.0.0.1", port))
            try:
                if probe.recv(2048)[8:20] == ask[8:20]:
                    return
            except (TimeoutError, ConnectionRefusedError):
                continue
    raise AssertionError("coturn does not answer")


async def credentials(relay: Relay) -> dict[str, Any]:
    async with PyPhone(relay.server.address) as phone:
        await phone.register()
        answer = await phone.rest("GET", "/api/ice-servers")
        server: dict[str, Any] = answer["iceServers"][-1]
        assert server["username"].endswith(f":{phone.id}")
        return {**server, "ttl": answer["ttlSeconds"]}


async def test_the_servers_credentials_make_an_allocation_that_relays(relay: Relay) -> None:
    given = await credentials(relay)
    assert given["urls"][0] == f"turn:127.0.0.1:{relay.port}?transport=udp"
    left = int(given["username"].split(":")[0]) - time.time()
    assert given["ttl"] - 60 < left <= given["ttl"]
    assert relay.allocate(given["username"], given["credential"])


async def test_a_wrong_password_and_a_changed_name_make_none(relay: Relay) -> None:
    given = await credentials(relay)
    assert not relay.allocate(given["username"], "not the password")
    expires, user = given["username"].split(":")
    assert not relay.allocate(f"{int(expires) + 3600}:{user}", given["credential"]), "a longer life"
    assert not relay.allocate(f"{expires}:somebody-else", given["credential"]), "another person"


async def test_an_expired_name_makes_none_though_its_password_is_right(relay: Relay) -> None:
    given = await credentials(relay)
    _, user = given["username"].split(":")
    expired, good = f"{int(time.time()) - 60}:{user}", f"{int(time.time()) + 60}:{user}"
    assert not relay.allocate(expired, password(expired))
    assert relay.allocate(good, password(good)), "the same, not yet expired"


def test_doctor_finds_the_relay_and_misses_one_that_is_not_there(relay: Relay) -> None:
    found = relay.server.command("doctor").stdout
    assert "2 server(s) answer" in found
    closed = free_port()
    relay.server.env["TURN_URLS"] = f"turn:127.0.0.1:{closed}"
    done = relay.server.command("doctor")
    assert f"no answer from turn:127.0.0.1:{closed}" in done.stdout
    assert done.returncode == 1


def test_a_call_between_two_tabs_goes_through_the_relay_when_it_must(relay: Relay, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        ada, bea = (browser.page(name).open(f"{relay.server.address}/") for name in ("Ada", "Bea"))
        for page in (ada, bea):
            page.run("() => { window.relayOnly = true; }")
            page.join(page.name)
        ada.call("Bea")
        bea.until("() => document.querySelector('[data-test=accept]').checkVisibility()")
        bea.click("accept")
        for page in (ada, bea):
            page.until_state("active")
            page.until_media_grows()
            assert page.run(_PATH) == "relay"
        ada.click("hangup")
        bea.until_state("ended")


# The kind of the local candidate over which this page's media goes.
_PATH = """async () => {
  const stats = await window.madeConnections.at(-1).getStats();
  const all = [...stats.values()];
  const pair = stats.get(all.find((one) => one.type === "transport").selectedCandidatePairId);
  return stats.get(pair.localCandidateId).candidateType;
}"""
