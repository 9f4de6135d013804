"""The manifests of ops/kubernetes: valid against the published schemas, in step with the code. Without a cluster."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from flower import options as flower_options
from kubernetes_validate.utils import resources_from_file

from tasks.app import HARD_LIMIT_SECONDS
from tasks.models import MIB
from tasks.settings import Settings
from worker import health
from worker.metrics import MetricsSettings
from worker.sandbox.config import SandboxConfig
from worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = sorted((ROOT / "ops/kubernetes").glob("*.yaml"))
MANIFESTS: list[dict[str, Any]] = [found for file in FILES for found in resources_from_file(str(file))]
#: Their schemas are not Kubernetes' own. KEDA's fields were compared with its documentation (2.15) by hand.
OTHERS = ("Kustomization", "ScaledObject")
#: The oldest that is still maintained as this is written, and the newest whose schema is there.
VERSIONS = ("1.34", kubernetes_validate.latest_version())


def one(kind: str, name: str = "") -> dict[str, Any]:
    """Return the only manifest of a kind, or the one of a name."""
    (found,) = (m for m in MANIFESTS if m["kind"] == kind and (not name or name == m["metadata"]["name"]))
    return found


def pod(name: str) -> dict[str, Any]:
    """Return the pod a Deployment makes."""
    spec: dict[str, Any] = one("Deployment", name)["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    """Return the only container of that pod."""
    (found,) = pod(name)["containers"]
    return dict(found)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "manifest", [m for m in MANIFESTS if m["kind"] not in OTHERS], ids=kubernetes_validate.utils.kn
)
def test_schema(manifest: dict[str, Any], version: str) -> None:
    """Kubernetes accepts it, and knows every field."""
    kubernetes_validate.validate(manifest, version, strict=True)


def test_kustomization_names_every_file() -> None:
    """A file that nobody applies is no use."""
    assert sorted(one("Kustomization")["resources"]) == [f.name for f in FILES if f.name != "kustomization.yaml"]


def test_grace_period_is_above_the_hard_limit() -> None:
    """What runs ends by itself before its worker is killed."""
    assert pod("stratbox-worker")["terminationGracePeriodSeconds"] >= HARD_LIMIT_SECONDS + 30


@pytest.mark.parametrize("name", ["stratbox-worker", "stratbox-flower"])
def test_pods_have_no_privilege(name: str) -> None:
    """Whoever gets out of the worker's Python is an ordinary user with a read-only root and no token of the cluster."""
    assert pod(name)["automountServiceAccountToken"] is False
    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    # The engine starts strategies as 1000: with the same number one that got out could end the worker.
    assert pod(name)["securityContext"]["runAsUser"] != 1000


def test_images_have_this_version() -> None:
    """Worker, Flower and the sandbox that the worker expects are of one release."""
    version = importlib.metadata.version("stratbox")
    assert {container(name)["image"] for name in ("stratbox-worker", "stratbox-flower")} == {
        f"stratbox/worker:{version}"
    }
    assert [image["newTag"] for image in one("Kustomization")["images"]] == [version]
    assert (
        one("ConfigMap")["data"]["STRATBOX_SANDBOX_IMAGE"]
        == SandboxConfig().image
        == (f"stratbox/strategy-executor:{version}")
    )


def known_variables() -> set[str]:
    """Return the name of every STRATBOX_* variable there is."""
    fields = {*Settings.model_fields, *WorkerSettings.model_fields}
    for group, kind in (("sandbox", SandboxConfig), ("metrics", MetricsSettings)):
        fields |= {f"{group}_{field}" for field in kind.model_fields}
    return {f"STRATBOX_{field.upper()}" for field in fields}


def test_variables_exist() -> None:
    """A mistyped name would be ignored, by us and by Flower."""
    names = {variable["name"] for name in ("stratbox-worker", "stratbox-flower") for variable in container(name)["env"]}
    names |= one("ConfigMap")["data"].keys()
    assert {name for name in names if name.startswith("STRATBOX_")} <= known_variables()
    of_flower = {f"FLOWER_{name.upper()}" for name in flower_options.default_options}
    assert {name for name in names if name.startswith("FLOWER_")} <= of_flower


@pytest.mark.parametrize(
    ("probe", "state", "healthy"),
    [
        ("startupProbe", "ready", True),
        ("readinessProbe", "ready", True),
        ("readinessProbe", "waiting for Redis", False),
        ("livenessProbe", "ready", True),
        ("livenessProbe", "waiting for Redis", True),
    ],
)
def test_probes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, probe: str, state: str, healthy: bool) -> None:  # noqa: FBT001
    """Each probe is a command that exists, and without Redis a worker is not ready, but is not started again either."""
    python, flag, module, *arguments = container("stratbox-worker")[probe]["exec"]["command"]
    assert [python, flag, module] == ["python", "-m", health.__name__]
    (tmp_path / "health.json").write_text(json.dumps({"pid": os.getpid(), "state": state}))
    monkeypatch.setenv("STRATBOX_HEALTH_FILE", str(tmp_path / "health.json"))
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        health.main()
    except SystemExit:
        assert not healthy
    else:
        assert healthy


def test_health_file_can_be_written() -> None:
    """The root is read-only, so the file is in a volume."""
    variables = {variable["name"]: variable.get("value") for variable in container("stratbox-worker")["env"]}
    mounts = [mount["mountPath"] for mount in container("stratbox-worker")["volumeMounts"] if "readOnly" not in mount]
    assert str(Path(variables["STRATBOX_HEALTH_FILE"] or "").parent) in mounts


def test_data_sets_have_room() -> None:
    """Files over the volume's size have the pod evicted, and the volume is memory: the worker keeps what it had."""
    variables = {variable["name"]: variable.get("value") for variable in container("stratbox-worker")["env"]}
    (volume,) = (one["emptyDir"] for one in pod("stratbox-worker")["volumes"] if one["name"] == "tmp")
    cache, size, memory = (
        int(text.removesuffix("Mi")) * MIB if text.endswith("Mi") else int(text)
        for text in (
            str(variables["STRATBOX_DATASET_CACHE_BYTES"]),
            volume["sizeLimit"],
            container("stratbox-worker")["resources"]["limits"]["memory"],
        )
    )
    assert cache + 64 * MIB <= size
    assert cache + 768 * MIB <= memory


def test_selectors_find_their_pods() -> None:
    """Deployment, budget, service and autoscaler mean the same pods."""
    for deployment in (m for m in MANIFESTS if m["kind"] == "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    worker, flower = (
        one("Deployment", f"stratbox-{n}")["spec"]["selector"]["matchLabels"] for n in ("worker", "flower")
    )
    assert one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == worker
    assert one("Service")["spec"]["selector"] == flower
    assert (
        one("ScaledObject")["spec"]["scaleTargetRef"]["name"]
        == one("Deployment", "stratbox-worker")["metadata"]["name"]
    )


def test_network_is_closed_but_for_what_is_named() -> None:
    """Both directions are denied, Redis and names are let out, and Prometheus comes in on the ports that there are."""
    assert one("NetworkPolicy", "deny-all")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    out = {port["port"] for rule in one("NetworkPolicy", "redis")["spec"]["egress"] for port in rule["ports"]}
    assert out == {6380, 26379, 53}
    into = {port["port"] for rule in one("NetworkPolicy", "metrics")["spec"]["ingress"] for port in rule["ports"]}
    served = {p["containerPort"] for n in ("stratbox-worker", "stratbox-flower") for p in container(n)["ports"]}
    assert into == served


def test_autoscaler_asks_for_a_metric_that_workers_have() -> None:
    """A query for nothing would leave them at the fallback for ever; each worker tells the whole queue's length."""
    (trigger,) = one("ScaledObject")["spec"]["triggers"]
    found = re.fullmatch(r"(\w+)\((\w+)\)", trigger["metadata"]["query"])
    assert found
    aggregation, metric = found.groups()
    assert aggregation == "max"
    assert f'"{metric}"' in (ROOT / "worker/scrape.py").read_text()
    assert one("ScaledObject")["spec"]["minReplicaCount"] > 0
    assert "replicas" not in one("Deployment", "stratbox-worker")["spec"]
