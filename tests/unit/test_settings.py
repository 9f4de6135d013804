"""Settings of both sides: from the environment, frozen, and never quoted in an error."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from tasks.app import HARD_LIMIT_SECONDS
from tasks.models import ExecutionLimits, one_line
from tasks.policy import DEFAULT_POLICY
from tasks.settings import Settings
from tasks.validator import ASTValidator
from worker.sandbox.config import SandboxConfig
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from pathlib import Path


def test_defaults_are_a_local_redis_and_celery_s_own_queue() -> None:
    """A plain `send_task` of a producer without our code arrives."""
    settings = Settings()
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert settings.queue == "celery"
    assert settings.result_expires_seconds == 86_400
    assert settings.visibility_timeout_seconds == 240
    assert settings.policy() == DEFAULT_POLICY


def make_certificate(folder: Path) -> None:
    """Make a certificate that signed itself."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -subj /CN=CA"
    files = ["-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run([*command.split(), *files], cwd=folder, check=True, capture_output=True, timeout=10)


def test_environment_sets_every_field(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each field is `STRATBOX_` and its name."""
    certificate = str(tmp_path / "certificate.pem")
    make_certificate(tmp_path)
    monkeypatch.setenv("STRATBOX_REDIS_URL", "sentinel://:word@one.example:26379/3")
    monkeypatch.setenv("STRATBOX_REDIS_CA_CERTS", certificate)
    monkeypatch.setenv("STRATBOX_REDIS_CLIENT_CERT", certificate)
    monkeypatch.setenv("STRATBOX_REDIS_CLIENT_KEY", str(tmp_path / "key.pem"))
    monkeypatch.setenv("STRATBOX_REDIS_SENTINEL_MASTER", "strategies")
    monkeypatch.setenv("STRATBOX_REDIS_SENTINEL_PASSWORD", "watch")
    monkeypatch.setenv("STRATBOX_QUEUE", "fast.lane-1")
    monkeypatch.setenv("STRATBOX_RESULT_EXPIRES_SECONDS", "60")
    monkeypatch.setenv("STRATBOX_VISIBILITY_TIMEOUT_SECONDS", "3600")
    monkeypatch.setenv("STRATBOX_MAX_QUEUED", "7")
    monkeypatch.setenv("STRATBOX_MAX_QUEUED_BYTES", "8")
    monkeypatch.setenv("STRATBOX_MAX_PER_TENANT", "9")
    monkeypatch.setenv("STRATBOX_DATASET_EXPIRES_SECONDS", "61")
    monkeypatch.setenv("STRATBOX_MAX_DATASET_BYTES", "10")
    monkeypatch.setenv("STRATBOX_POLICY_EXTRA_MODULES", '{"textwrap": ["dedent"]}')
    assert Settings().model_dump() == {
        "redis_url": "sentinel://:word@one.example:26379/3",
        "redis_ca_certs": tmp_path / "certificate.pem",
        "redis_client_cert": tmp_path / "certificate.pem",
        "redis_client_key": tmp_path / "key.pem",
        "redis_sentinel_master": "strategies",
        "redis_sentinel_password": SecretStr("watch"),
        "queue": "fast.lane-1",
        "result_expires_seconds": 60,
        "visibility_timeout_seconds": 3600,
        "max_queued": 7,
        "max_queued_bytes": 8,
        "max_per_tenant": 9,
        "dataset_expires_seconds": 61,
        "max_dataset_bytes": 10,
        "policy_extra_modules": {"textwrap": ("dedent",)},
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "http://127.0.0.1:6379/0"),
        ("REDIS_URL", "redis://127.0.0.1:99999/0"),
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("REDIS_URL", ""),
        ("REDIS_URL", "rediss://127.0.0.1:6380/0?ssl_cert_reqs=none"),
        ("REDIS_URL", "redis://127.0.0.1:6379/queue"),
        ("REDIS_URL", "redis://one.example;redis://other.example"),
        ("REDIS_URL", "sentinel://one.example/0"),
        ("REDIS_URL", "sentinel://one.example:26379;two.example:26379"),
        ("REDIS_URL", "sentinel://one.example:26379/0;redis://two.example:6379/0"),
        ("REDIS_URL", "sentinel://:word@one.example:26379/0;sentinel://:other@two.example:26379/0"),
        ("REDIS_URL", "sentinel://one.example:26379/0;sentinel://two.example:26379/1"),
        ("REDIS_CA_CERTS", "/nowhere/ca.pem"),
        ("QUEUE", ""),
        ("QUEUE", "two words"),
        ("QUEUE", "line\n"),
        ("RESULT_EXPIRES_SECONDS", "59"),
        ("DATASET_EXPIRES_SECONDS", "59"),
        ("MAX_DATASET_BYTES", "0"),
        ("VISIBILITY_TIMEOUT_SECONDS", "179"),
        ("VISIBILITY_TIMEOUT_SECONDS", "3601"),
        ("VISIBILITY_TIMEOUT_SECONDS", "soon"),
        ("POLICY_EXTRA_MODULES", "decimal"),
        ("POLICY_EXTRA_MODULES", "[" * 100_000),
        ("POLICY_EXTRA_MODULES", '["decimal"]'),
        ("POLICY_EXTRA_MODULES", '{"os": ["getcwd"]}'),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The operator reads which variable is wrong."""
    monkeypatch.setenv(f"STRATBOX_{name}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert one_line(caught.value).startswith(f"{name.lower()}: ")


@pytest.mark.parametrize(
    ("url", "files", "named"),
    [
        ("sentinel://one.example:26379/0", {}, "set STRATBOX_REDIS_SENTINEL_MASTER"),
        ("redis://one.example/0", {"redis_sentinel_master": "strategies"}, "does not begin with sentinel://"),
        ("redis://one.example/0", {"redis_sentinel_password": "watch"}, "does not begin with sentinel://"),
        ("redis://one.example/0", {"redis_ca_certs": "certificate.pem"}, "no TLS: use rediss://"),
        ("rediss://one.example/0", {"redis_ca_certs": "key.pem"}, "STRATBOX_REDIS_CA_CERTS: not a PEM file"),
        ("rediss://one.example/0", {"redis_client_cert": "certificate.pem"}, "belong together: set both"),
        (
            "rediss://one.example/0",
            {"redis_client_cert": "certificate.pem", "redis_client_key": "certificate.pem"},
            "STRATBOX_REDIS_CLIENT_CERT and _KEY: not a PEM file",
        ),
    ],
)
def test_settings_that_do_not_go_together(tmp_path: Path, url: str, files: dict[str, str], named: str) -> None:
    """What contradicts itself, or cannot be read as a certificate, ends at the start in one line."""
    make_certificate(tmp_path)
    values = {name: tmp_path / value if value.endswith(".pem") else value for name, value in files.items()}
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"redis_url": url, **values})
    assert named in one_line(caught.value)


def test_a_key_with_a_password_is_refused_and_not_asked_for(tmp_path: Path) -> None:
    """OpenSSL would ask the terminal, and a worker without one would wait for ever."""
    make_certificate(tmp_path)
    command = "openssl ec -in key.pem -aes256 -passout pass:word -out locked.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True, timeout=10)
    pair = {"redis_client_cert": tmp_path / "certificate.pem", "redis_client_key": tmp_path / "locked.pem"}
    with pytest.raises(ValidationError, match="_KEY: not a PEM file that can be used"):
        Settings.model_validate({"redis_url": "rediss://one.example/0", **pair})


def test_sentinels_share_the_login_of_the_first() -> None:
    """User, password and database are those of Redis; kombu takes them from whichever address it tries."""
    settings = Settings(
        redis_url="sentinel://user:word@one.example:26379/2;sentinel://two.example:26380",
        redis_sentinel_master="strategies",
    )
    one, two = "sentinel://user:word@one.example:26379/2", "sentinel://user:word@two.example:26380/2"
    assert settings.redis_url == f"{one};{two}"
    assert settings.redis_by_sentinel
    assert not settings.redis_over_tls


def test_a_name_where_names_belong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single word is not read as its letters."""
    monkeypatch.setenv("STRATBOX_POLICY_EXTRA_MODULES", '{"textwrap": "dedent"}')
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert one_line(caught.value).startswith("policy_extra_modules.textwrap: ")


def test_the_policy_is_extended_by_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operator adds passes, and only that; the worker's own settings leave the variable alone."""
    monkeypatch.setenv("STRATBOX_POLICY_EXTRA_MODULES", '{"textwrap": ["dedent"], "decimal": ["FloatOperation"]}')
    validator = ASTValidator(Settings().policy())
    assert validator.validate("import textwrap\nfrom decimal import Decimal, FloatOperation\ntextwrap.dedent('a')\n")
    assert [v.rule for v in validator.validate("import textwrap\ntextwrap.re\n").violations] == ["R7"]
    assert not ASTValidator().validate("import textwrap")
    assert WorkerSettings() == WorkerSettings.model_construct()


@pytest.mark.parametrize("scheme", ["http", "sentinel"])
def test_a_wrong_url_does_not_leak_its_password(scheme: str) -> None:
    """Error texts go to logs; the URL holds the password."""
    with pytest.raises(ValidationError) as caught:
        Settings(redis_url=f"{scheme}://:hunter2@redis.example/0")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in one_line(caught.value)


def test_shortest_visibility_timeout_is_above_the_hard_limit() -> None:
    """No setting lets a task be delivered a second time while it may still run."""
    assert Settings(visibility_timeout_seconds=180).visibility_timeout_seconds > HARD_LIMIT_SECONDS


@pytest.mark.parametrize("kind", [Settings, WorkerSettings, SandboxConfig, ExecutionLimits])
def test_settings_are_frozen(kind: type[BaseModel]) -> None:
    """Nothing changes a setting once it was read."""
    with pytest.raises(ValidationError, match="frozen"):
        setattr(kind(), next(iter(kind.model_fields)), None)


def test_worker_defaults_are_the_promised_limits() -> None:
    """Without a variable set, the limits are those of the contract."""
    assert WorkerSettings().sandbox_config() == SandboxConfig(limits=ExecutionLimits())


def test_environment_sets_the_fields_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with underscores of its own is still found: only the first one splits."""
    monkeypatch.setenv("STRATBOX_SANDBOX_RUNTIME", "runsc")
    monkeypatch.setenv("STRATBOX_SANDBOX_START_TIMEOUT_SECONDS", "7.5")
    monkeypatch.setenv("STRATBOX_LIMITS_MEMORY_BYTES", str(128 * 2**20))
    monkeypatch.setenv("STRATBOX_LIMITS_TIMEOUT_SECONDS", "5")
    config = WorkerSettings().sandbox_config()
    assert (config.runtime, config.start_timeout_seconds) == ("runsc", 7.5)
    assert (config.limits.memory_bytes, config.limits.timeout_seconds) == (128 * 2**20, 5)
    assert config.limits.pids == ExecutionLimits().pids


def test_environment_sets_the_cache_of_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of no group; 0 is none."""
    assert WorkerSettings().dataset_cache_bytes == 256 * 2**20
    monkeypatch.setenv("STRATBOX_DATASET_CACHE_BYTES", "0")
    assert WorkerSettings().dataset_cache_bytes == 0


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("LIMITS_TIMEOUT_SECONDS", "61", "limits.timeout_seconds"),
        ("LIMITS_OUTPUT_BYTES", str(2**20 + 1), "limits.output_bytes"),
        ("LIMITS_CPUS", "0", "limits.cpus"),
        ("LIMITS_COLOUR", "red", "limits.colour"),
        ("SANDBOX_NETWORK", "host", "sandbox.network"),
        ("SANDBOX_IMAGE", "", "sandbox.image"),
        ("DATASET_CACHE_BYTES", "-1", "dataset_cache_bytes"),
    ],
)
def test_a_wrong_worker_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str) -> None:
    """A ceiling is not raised over the contract's, and a mistyped name is not ignored."""
    monkeypatch.setenv(f"STRATBOX_{name}", value)
    with pytest.raises(ValidationError) as caught:
        WorkerSettings()
    assert one_line(caught.value).startswith(f"{field}: ")
