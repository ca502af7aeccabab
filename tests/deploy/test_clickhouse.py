"""The examples of several Ringtails in front of one ClickHouse agree with each other, and with the daemon. None is run here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import yaml

from collector.config import Config
from collector.daemon import DRAIN_S
from collector.exporters.clickhouse.settings import ClickHouseSettings, problems
from collector.quantities import read_duration, read_size
from collector.settings import load, load_files

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
HERE = DEPLOY / "clickhouse"
DATA = "/var/lib/ringtail"
VARIABLES = {"CLICKHOUSE_PASSWORD": "p4ss"}
COMPOSE: dict[str, Any] = yaml.safe_load((HERE / "compose.yaml").read_text())
CLUSTER = ET.parse(HERE / "cluster.xml").getroot()
KUBERNETES = [*yaml.safe_load_all((DEPLOY / "kubernetes" / "clickhouse.yaml").read_text())]


def exporter(config: Config) -> ClickHouseSettings:
    (found,) = config.exporters.values()
    assert isinstance(found, ClickHouseSettings)
    assert list(problems(found)) == []
    assert config.query.backend in config.exporters
    assert config.query.backend_shared
    assert found.distributed
    assert found.table_engine == "ReplicatedMergeTree"
    return found


def of_kind(kind: str) -> list[Mapping[str, Any]]:
    return [one for one in KUBERNETES if one["kind"] == kind]


def test_compose_has_what_ringtail_is_told_of() -> None:
    config = load_files([str(DEPLOY / "collector.yaml"), str(HERE / "ringtail.yaml")], [], VARIABLES)
    found = exporter(config)
    services = COMPOSE["services"]
    assert {urlsplit(one).hostname for one in found.endpoint} == {one for one in services if "clickhouse-" in one}
    cluster = CLUSTER.find(f"remote_servers/{found.cluster_name}")
    assert cluster is not None
    assert {one.text for one in cluster.iter("host")} == {urlsplit(one).hostname for one in found.endpoint}
    assert {one.text for one in cluster.iter("internal_replication")} == {"true"}, "one replica copies to the others"
    assert {one.text for one in cluster.iter("user")} == {found.username}
    names = {one.get("from_env") for one in CLUSTER.iter() if one.get("from_env")}
    for name, service in services.items():
        if name.startswith("clickhouse-"):
            assert names <= service["environment"].keys()
            assert service["environment"]["CLICKHOUSE_USER"] == found.username
            assert service["environment"]["REPLICA"] == name == service["hostname"]
    keeper = ET.parse(HERE / "keeper.xml").getroot()
    assert CLUSTER.findtext("zookeeper/node/host") == "keeper" in services
    assert CLUSTER.findtext("zookeeper/node/port") == keeper.findtext("keeper_server/tcp_port")


def test_each_ringtail_has_a_log_of_its_own() -> None:
    ringtails = {name: one for name, one in COMPOSE["services"].items() if name.startswith("ringtail-")}
    volumes = [mount for one in ringtails.values() for mount in one["volumes"] if mount.endswith(f":{DATA}")]
    assert len(set(volumes)) == len(ringtails) == 3
    for one in ringtails.values():
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert read_duration(one["stop_grace_period"]) > DRAIN_S


def test_compose_mounts_what_is_there() -> None:
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            assert (HERE / service["build"]["context"] / service["build"]["dockerfile"]).is_file(), name
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (HERE / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"], mount
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "there is no authentication"
        for other in service.get("depends_on", []):
            assert other in COMPOSE["services"]


def test_the_balancer_knows_every_ringtail() -> None:
    text = (HERE / "nginx.conf").read_text()
    ringtails = {name for name in COMPOSE["services"] if name.startswith("ringtail-")}
    config = load_files([str(DEPLOY / "collector.yaml"), str(HERE / "ringtail.yaml")], [], VARIABLES)
    protocols = config.receivers.otlp.protocols
    assert protocols.grpc is not None
    assert protocols.http is not None
    ports = {one.rpartition(":")[2] for one in (protocols.grpc.endpoint, protocols.http.endpoint, config.api.endpoint)}
    upstreams = re.findall(r"upstream [\w-]+ \{(.*?)\}", text, re.DOTALL)
    assert {frozenset(re.findall(r"server (\S+) ", one)) for one in upstreams} == {
        frozenset(f"{name}:{port}" for name in ringtails) for port in ports
    }
    assert set(re.findall(r"listen (\d+)", text)) == ports
    assert {port.rpartition(":")[2] for port in COMPOSE["services"]["balancer"]["ports"]} == ports
    limit = re.search(r"client_max_body_size (\d+)m", text)
    assert limit is not None
    assert int(limit[1]) >= protocols.grpc.max_recv_msg_size_mib


def test_kubernetes() -> None:
    (stateful,) = of_kind("StatefulSet")
    (configured,) = of_kind("ConfigMap")
    texts = [("image", (DEPLOY / "collector.yaml").read_text()), ("map", configured["data"]["collector.yaml"])]
    config = load(texts, [], VARIABLES)
    found = exporter(config)
    spec = stateful["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    for service in of_kind("Service"):
        assert service["spec"]["selector"] == labels
    for kind, path in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        (one,) = of_kind(kind)
        assert one["spec"][path]["matchLabels"] == labels
    headless = next(one for one in of_kind("Service") if one["spec"].get("clusterIP") == "None")
    assert spec["serviceName"] == headless["metadata"]["name"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert {one["targetPort"] for one in headless["spec"]["ports"]} == set(ports)
    assert pod["terminationGracePeriodSeconds"] > DRAIN_S
    assert {one["name"] for one in container["env"]} == VARIABLES.keys()
    (policy,) = of_kind("NetworkPolicy")
    (endpoint,) = found.endpoint
    url = urlsplit(endpoint)
    assert url.hostname is not None
    first = policy["spec"]["egress"][0]
    assert first["ports"] == [{"port": url.port}]
    namespace = first["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert namespace == url.hostname.split(".")[1]
    (claim,) = spec["volumeClaimTemplates"]
    assert 3 * config.wal.retention.max_bytes < read_size(f"{claim['spec']['resources']['requests']['storage']}B")
    rings = sum(getattr(config.stores, one).max_bytes for one in ("traces", "logs", "metrics"))
    assert rings < read_size(f"{container['resources']['requests']['memory']}B")
