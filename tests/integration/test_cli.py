"""The command as a person types it: real processes, real containers, a real Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local import private_redis

from tasks import Settings, StrategyClient
from worker.doctor import PROBES

ROOT = Path(__file__).resolve().parents[2]
STRATBOX = str(Path(sys.executable).with_name("stratbox"))
RSI, MARKET = str(ROOT / "examples" / "rsi_mean_reversion.py"), str(ROOT / "examples" / "data" / "sp500.json")
NO_REDIS = {"STRATBOX_REDIS_URL": "redis://127.0.0.1:1/0"}


def stratbox(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command and return what it printed."""
    env = os.environ | {"COLUMNS": "80"} | environment
    return subprocess.run([STRATBOX, *arguments], env=env, capture_output=True, text=True, timeout=90, check=False)


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell's."""
    env = os.environ | environment
    line = ["bash", "-c", command]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=90, check=False)


def test_run_prints_a_result_and_the_second_run_is_warm() -> None:
    """`run --json` prints one result a line; the second finds its sandbox waiting."""
    done = stratbox("run", RSI, "--data", MARKET, "--json", "--repeat", "2")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["status"] == second["status"] == "succeeded"
    assert json.loads(first["output"])["metrics"] == json.loads(second["output"])["metrics"]
    assert second["metrics"]["warm"]
    assert second["metrics"]["startup_seconds"] <= 0.05


@pytest.mark.parametrize(
    ("example", "timeout", "code"),
    [("endless_loop", "1", 1), ("memory_hog", "20", 1), ("raises", "20", 1), ("refused_network", "20", 2)],
)
def test_run_exit_codes(example: str, timeout: str, code: int) -> None:
    """What did not succeed leaves with 1, what was refused with 2, and no traceback of ours is shown."""
    strategy = str(ROOT / "examples" / "misbehaving" / f"{example}.py")
    done = stratbox("run", strategy, "--data", MARKET, "--timeout", timeout)
    assert done.returncode == code, done.stderr
    assert "worker/" not in done.stderr


@pytest.mark.usefixtures("worker_process")
def test_submit_follow_and_cancel(redis_url: str, tmp_path: Path) -> None:
    """`submit`, `status`, `result` and `cancel` go through Redis; `submit --wait` prints the result."""
    env = {"STRATBOX_REDIS_URL": redis_url}
    waited = stratbox("submit", RSI, "--data", MARKET, "--wait", "--json", **env)
    assert waited.returncode == 0, waited.stderr
    assert json.loads(waited.stdout)["status"] == "succeeded"

    loop = tmp_path / "loop.py"
    loop.write_text("while True:\n    pass\n")
    submission = stratbox("submit", str(loop), **env).stdout.strip()
    assert stratbox("status", submission, **env).stdout.strip() in ("queued", "running")
    early = stratbox("result", submission, **env)
    assert (early.returncode, early.stdout) == (1, "")
    assert stratbox("cancel", submission, **env).returncode == 0
    ended = stratbox("result", submission, "--timeout", "10", "--json", **env)
    assert (ended.returncode, json.loads(ended.stdout)["status"]) == (1, "cancelled")
    assert stratbox("status", submission, **env).stdout.strip() == "cancelled"
    assert stratbox("cancel", submission, **env).returncode == 1


@pytest.mark.usefixtures("worker_process")
def test_a_data_set_is_put_once_and_referred_to(redis_url: str, tmp_path: Path) -> None:
    """`dataset put` prints what `submit --dataset` takes; `--params` goes into it, with `run` into a file's data."""
    env = {"STRATBOX_REDIS_URL": redis_url}
    data, show = tmp_path / "data.json", tmp_path / "show.py"
    data.write_text('{ "price": 7 }')
    show.write_text("print(open('/workspace/data.json').read())\n")
    put = [stratbox("dataset", "put", str(data), **env) for _ in range(2)]
    assert (put[0].returncode, put[0].stderr) == (0, "")
    assert put[0].stdout == put[1].stdout
    ref = put[0].stdout.strip()
    waited = stratbox("submit", str(show), "--dataset", ref, "--params", '{"fast": 5}', "--wait", **env)
    assert waited.stdout == '{"params":{"fast":5},"price":7}\n', waited.stderr
    ran = stratbox("run", str(show), "--data", str(data), "--params", '{"fast": 5}')
    assert ran.stdout == waited.stdout, ran.stderr
    unknown = stratbox("submit", str(show), "--dataset", "0" * 64, **env)
    assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (2, "", 1)
    assert "put it again" in unknown.stderr


@pytest.mark.usefixtures("worker_process")
def test_a_full_disk_costs_no_more_than_what_goes_there(redis_url: str, tmp_path: Path) -> None:
    """Of a sweep the file on another disk is there, and what was not written is said; `dataset put` says it, too."""
    strategy, data, kept = tmp_path / "show.py", tmp_path / "data.json", tmp_path / "kept.csv"
    strategy.write_text("print('{\"sharpe\": 1}')\n")
    data.write_text("{}")
    sweep = f"sweep {strategy} --grid x=1,2 --csv {kept} --json /dev/full"
    for command, lines in ((sweep, 2), (f"dataset put {data}", 1)):
        done = shell(f"{STRATBOX} {command} >/dev/full", STRATBOX_REDIS_URL=redis_url)
        told = done.stderr.splitlines()
        assert done.returncode == 1
        assert len(told) == lines
        assert told[-1] == "stratbox: standard output: no space left on device"
    assert len(kept.read_text().splitlines()) == 3
    kept.unlink()
    done = shell(f"{STRATBOX} {sweep.replace('/dev/full', '/dev/null')} | true", STRATBOX_REDIS_URL=redis_url)
    assert "Traceback" not in done.stderr
    assert len(kept.read_text().splitlines()) == 3


@pytest.mark.usefixtures("worker_process")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_sweep_that_is_ended_leaves_nothing_queued(redis_url: str, tmp_path: Path, number: signal.Signals) -> None:
    """As with Ctrl-C: what there is is shown and written, and the rest is cancelled."""
    strategy, written = tmp_path / "wait.py", tmp_path / "all.csv"
    strategy.write_text(
        "import json, time\n"
        "n = json.load(open('/workspace/data.json'))['params']['n']\n"
        "time.sleep(0 if n == 1 else 50)\nprint(json.dumps({'sharpe': n}))\n"
    )
    command = [STRATBOX, "sweep", str(strategy), "--grid", "n=1:100:1", "--csv", str(written)]
    env, pipe = os.environ | {"STRATBOX_REDIS_URL": redis_url}, subprocess.PIPE
    with StrategyClient(Settings(redis_url=redis_url)) as client:
        before = client.ledger.waiting()[0]
        with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) as process:
            deadline = time.monotonic() + 20
            # Another is submitted when one has ended.
            while client.ledger.waiting()[0] - before < 60 and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(2)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, len(out.splitlines())) == (130, 3), err
        statuses = [line.split(",")[1] for line in written.read_text().splitlines()[1:]]
        assert statuses[0] == "succeeded"
        assert set(statuses) == {"succeeded", "cancelled", "not_run"}
        while client.ledger.waiting()[0] > before and time.monotonic() < deadline + 20:
            time.sleep(0.05)
        assert client.ledger.waiting()[0] == before


def test_no_room_for_data_is_exit_code_4(tmp_path: Path) -> None:
    """One line that names the bound and says when to come again."""
    data = tmp_path / "data.json"
    data.write_text("[2]")
    with private_redis() as url, StrategyClient(Settings(redis_url=url)) as client:
        client.datasets.put([1])
        full = stratbox("dataset", "put", str(data), STRATBOX_REDIS_URL=url, STRATBOX_MAX_DATASET_BYTES="60")
    assert (full.returncode, full.stdout, full.stderr.count("\n")) == (4, "", 1)
    assert "STRATBOX_MAX_DATASET_BYTES" in full.stderr
    assert "put it again in " in full.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "says"),
    [
        (("run", RSI), {"DOCKER_HOST": "unix:///nonexistent.sock"}, 3, "no container engine"),
        (("run", RSI), {"STRATBOX_SANDBOX_IMAGE": "stratbox/none:0"}, 3, "make setup"),
        (("run", RSI), {"STRATBOX_LIMITS_CPUS": "lots"}, 2, "STRATBOX_LIMITS_CPUS"),
        (("submit", RSI), NO_REDIS, 3, "STRATBOX_REDIS_URL"),
        (("submit", RSI, "--wait"), NO_REDIS, 3, "STRATBOX_REDIS_URL"),
        (("status", "x"), NO_REDIS, 3, "STRATBOX_REDIS_URL"),
        (("dead",), NO_REDIS, 3, "STRATBOX_REDIS_URL"),
        (("dead", "show", "x"), NO_REDIS, 3, "STRATBOX_REDIS_URL"),
        (("dead", "requeue", "x"), NO_REDIS, 3, "STRATBOX_REDIS_URL"),
        (("dead", "drop", "--all"), NO_REDIS, 3, "STRATBOX_REDIS_URL"),
        (("reconcile",), NO_REDIS, 3, "STRATBOX_REDIS_URL"),
        (("status", "x"), {"STRATBOX_REDIS_URL": "nonsense"}, 2, "STRATBOX_REDIS_URL"),
        (("run", "no/such/file.py"), {}, 2, "no such file"),
        (("run", "/"), {}, 2, "is a directory"),
        (("run", RSI, "--timeout", "61"), {}, 2, "timeout"),
        ((), {}, 2, "command"),
        (("worker", "--loglevel", "chatty"), {}, 2, "--loglevel"),
        (("worker",), {"STRATBOX_LIMITS_PIDS": "3"}, 2, "STRATBOX_LIMITS_PIDS"),
        (("worker",), {"STRATBOX_REDIS_URL": "nonsense"}, 2, "STRATBOX_REDIS_URL"),
    ],
)
def test_trouble_is_one_clear_line(
    arguments: tuple[str, ...], environment: dict[str, str], code: int, says: str
) -> None:
    """Each kind of trouble ends in one line that says what to do, and the documented exit code."""
    done = stratbox(*arguments, **environment)
    assert done.returncode == code, done
    assert says in done.stderr
    assert done.stderr.startswith("stratbox: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_unknown_submission(redis_url: str) -> None:
    """An id nobody submitted is refused, for each command that takes one."""
    for command in ("status", "result", "cancel"):
        done = stratbox(command, "4d1f0c1e-0000-0000-0000-000000000000", STRATBOX_REDIS_URL=redis_url)
        assert done.returncode == 2
        assert "check the id" in done.stderr


def test_a_key_makes_submitting_again_safe(tmp_path: Path) -> None:
    """The same key gives the same id and one submission, another request under it is refused; users have their own."""
    other = tmp_path / "other.py"
    other.write_text("print(2)\n")
    with private_redis() as url, StrategyClient(Settings(redis_url=url)) as client:
        first, second = (stratbox("submit", RSI, "--key", "k", STRATBOX_REDIS_URL=url).stdout for _ in range(2))
        assert first == second != ""
        assert client.ledger.waiting()[0] == 1
        conflict = stratbox("submit", str(other), "--key", "k", STRATBOX_REDIS_URL=url)
        assert (conflict.returncode, conflict.stdout, conflict.stderr.count("\n")) == (2, "", 1)
        assert conflict.stderr.startswith("stratbox: key: ")
        theirs = stratbox("submit", RSI, "--key", "k", "--user", "x", STRATBOX_REDIS_URL=url)
        assert theirs.stdout not in ("", first)


@pytest.mark.parametrize(
    ("setting", "value"),
    # One submission has room, with the second it is too much: 1,043 and 3,769 bytes.
    [("STRATBOX_MAX_QUEUED", "1"), ("STRATBOX_MAX_PER_TENANT", "1"), ("STRATBOX_MAX_QUEUED_BYTES", "4000")],
)
def test_no_room_is_exit_code_4(setting: str, value: str) -> None:
    """One line that names the bound and says when to come again; nothing is queued."""
    with private_redis() as url, StrategyClient(Settings(redis_url=url)) as client:
        client.submit("print(1)")
        full = stratbox("submit", RSI, STRATBOX_REDIS_URL=url, **{setting: value})
        assert (full.returncode, full.stdout, full.stderr.count("\n")) == (4, "", 1)
        assert setting in full.stderr
        assert "submit again in " in full.stderr
        assert client.ledger.waiting()[0] == 1


@pytest.mark.usefixtures("worker_process")
def test_doctor_is_content(redis_url: str) -> None:
    """With everything there, every check holds and the exit code is 0."""
    done = stratbox("doctor", STRATBOX_REDIS_URL=redis_url)
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    for row in ("engine", "image", *(probe.name for probe in PROBES), "redis", "workers"):
        assert row in done.stdout


def test_doctor_sees_what_is_missing(redis_url: str) -> None:
    """Without the image no limit can be shown to hold: the doctor fails and says so."""
    done = stratbox("doctor", STRATBOX_REDIS_URL=redis_url, STRATBOX_SANDBOX_IMAGE="stratbox/none:0")
    assert done.returncode == 1
    assert "FAIL" in done.stdout


def test_terminal_escapes_are_shown_not_obeyed(tmp_path: Path) -> None:
    """What a strategy prints cannot steer the reader's terminal."""
    strategy = tmp_path / "escape.py"
    strategy.write_text("print('\\x1b[2J\\x1b]0;title\\x07 [bold]not markup[/]')\n")
    done = stratbox("run", str(strategy))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\\x1b[2J\\x1b]0;title\\x07 [bold]not markup[/]\n"


def test_demo_ends_as_it_should() -> None:
    """`make demo`, less the set-up: all eight end as they should."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "ops" / "demo.py")], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "all eight ended as they should" in done.stderr
