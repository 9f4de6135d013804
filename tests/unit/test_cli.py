"""The command line: whatever is wrong is one line on stderr and a documented exit code, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import pytest

from tasks.errors import (
    BrokerUnavailable,
    DatasetsFull,
    ExecutionLost,
    InvalidRequest,
    OutputNotJSON,
    QueueFull,
    ResultTimeout,
    TenantLimit,
    UnknownDataset,
    UnknownSubmission,
)
from tasks.models import ExecutionResult, ExecutionStatus
from tasks.submission import Submission
from tasks.sweep import SweepPoint
from worker import cli, display, files
from worker.errors import EngineUnavailable, ImageMissing, SandboxStartError
from worker.sweep import command, heatmap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

GOOD = "import json\nprint(json.dumps({'signal': 'hold'}))\n"
MIB = 2**20


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line; gives exit code, stdout and stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stratbox", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        shown = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, shown.out, shown.err

    return call


@pytest.fixture
def refused(run: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Run what must be refused: exit code 2, nothing on stdout, one line on stderr, which is given back."""

    def call(*arguments: str | Path) -> str:
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("stratbox: ")
        assert err.endswith("\n")
        assert len(err.splitlines()) == 1
        return err.removeprefix("stratbox: ").removesuffix("\n")

    return call


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A file with a sound strategy."""
    path = tmp_path / "good.py"
    path.write_text(GOOD)
    return path


# Files.


@pytest.mark.parametrize("command", ["run", "submit", "validate"])
def test_a_missing_file(refused: Callable[..., str], tmp_path: Path, command: str) -> None:
    """Named, with the reason."""
    path = tmp_path / "none.py"
    assert refused(command, path) == f"{path}: no such file or directory"


def test_a_directory(refused: Callable[..., str], tmp_path: Path) -> None:
    """Is no strategy."""
    assert refused("run", tmp_path) == f"{tmp_path}: is a directory"


def test_code_that_is_not_utf_8(refused: Callable[..., str], tmp_path: Path) -> None:
    """The byte is named."""
    path = tmp_path / "latin.py"
    path.write_bytes(b"x = '\xe9'\n")
    assert refused("run", path) == f"{path}: not UTF-8 text (byte 5)"


def test_an_empty_file(refused: Callable[..., str], tmp_path: Path) -> None:
    """There is nothing to run."""
    path = tmp_path / "empty.py"
    path.touch()
    assert refused("run", path) == "code: String should have at least 1 character"


@pytest.mark.parametrize("command", ["run", "submit"])
def test_code_of_300_kib(refused: Callable[..., str], tmp_path: Path, command: str) -> None:
    """Size and limit are named."""
    path = tmp_path / "long.py"
    path.write_text("#" * (300 * 1024))
    assert refused(command, path) == "code: 307,200 bytes, the limit is 262,144"


def test_a_file_without_end(refused: Callable[..., str]) -> None:
    """Is not read to it."""
    assert refused("run", "/dev/zero") == "/dev/zero: more than 67,108,864 bytes, far over every limit"


@pytest.mark.parametrize("name", ["a\x1b[2Jb.py", "[bold]a[/].py", "a\u202eb.py"])
def test_a_hostile_file_name_is_shown_not_obeyed(refused: Callable[..., str], tmp_path: Path, name: str) -> None:
    """Neither by the terminal nor as markup."""
    shown = refused("run", tmp_path / name)
    assert shown.isprintable()
    assert shown.startswith(f"{tmp_path}/{name}".translate({0x1B: "\\x1b", 0x202E: "\\u202e"}))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("{'a': 1}", "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        ('{"close": [1, NaN]}', "not JSON (NaN is not JSON; use null)"),
        ("[-Infinity]", "not JSON (-Infinity is not JSON; use null)"),
        ("[" * 200_000, "not JSON (nested too deeply)"),
        ("a,b\n1,2\n", "not JSON (Expecting value: line 1 column 1 (char 0))"),
    ],
)
def test_data_that_is_not_json(refused: Callable[..., str], tmp_path: Path, good: Path, text: str, reason: str) -> None:
    """The file and the place are named."""
    path = tmp_path / "data.json"
    path.write_text(text)
    assert refused("run", good, "--data", path) == f"{path}: {reason}"


def test_data_that_is_not_utf_8(refused: Callable[..., str], tmp_path: Path, good: Path) -> None:
    """As for code."""
    path = tmp_path / "data.json"
    path.write_bytes(b'"\xff"')
    assert refused("run", good, "--data", path) == f"{path}: not UTF-8 text (byte 1)"


def test_a_missing_data_file(refused: Callable[..., str], tmp_path: Path, good: Path) -> None:
    """As for code."""
    path = tmp_path / "none.json"
    assert refused("submit", good, "--data", path) == f"{path}: no such file or directory"


def test_a_number_that_overflows(refused: Callable[..., str], tmp_path: Path, good: Path) -> None:
    """Valid as text, infinite as a number: its path is named."""
    path = tmp_path / "data.json"
    path.write_text('{"close": [1, 1e999]}')
    reason = "data['close'][1] is NaN or infinite, which JSON cannot hold; use null"
    assert refused("run", good, "--data", path) == reason


@pytest.mark.parametrize("command", [("run", "{good}", "--data"), ("submit", "{good}", "--data"), ("dataset", "put")])
def test_data_of_17_mib(refused: Callable[..., str], tmp_path: Path, good: Path, command: tuple[str, ...]) -> None:
    """Size and limit are named."""
    path = tmp_path / "data.json"
    path.write_text('"' + "x" * (17 * MIB - 2) + '"')
    arguments = (argument.format(good=good) for argument in command)
    assert refused(*arguments, path) == "data: 17,825,792 bytes as JSON, the limit is 16,777,216"


# Arguments.


@pytest.mark.parametrize("command", ["run", "submit"])
@pytest.mark.parametrize(
    ("timeout", "reason"),
    [
        ("0", "timeout: Input should be greater than 0"),
        ("-1", "timeout: Input should be greater than 0"),
        ("61", "timeout: Input should be less than or equal to 60"),
        ("nan", "timeout: Input should be "),
        ("inf", "timeout: Input should be less than or equal to 60"),
        ("soon", "Invalid value for '--timeout'"),
    ],
)
def test_timeouts(refused: Callable[..., str], good: Path, command: str, timeout: str, reason: str) -> None:
    """More than 0 and at most 60 s."""
    assert refused(command, good, "--timeout", timeout).startswith(reason)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("fly",), "No such command 'fly'"),
        (("run",), "Missing argument"),
        (("run", "{good}", "--fly"), "No such option: --fly"),
        (("run", "{good}", "more.py"), "Got unexpected extra argument"),
        (("run", "{good}", "--seed", "-1"), "seed: "),
        (("run", "{good}", "--seed", "4294967296"), "seed: "),
        (("run", "{good}", "--repeat", "0"), "Invalid value for '--repeat'"),
        (("run", "{good}", "--repeat", "1001"), "Invalid value for '--repeat'"),
        (("submit", "{good}", "--priority", "10"), "priority: 10 is not between 0 (first) and 9 (last)"),
        (("submit", "{good}", "--user", "a\nb"), "user_id: "),
        (("submit", "{good}", "--key", ""), "key: give 1 to 256 printable characters"),
        (("submit", "{good}", "--dataset", "x"), "dataset: not a reference, which is 64 hexadecimal digits"),
        (("submit", "{good}", "--dataset", "x", "--data", "{good}"), "give either --data or --dataset"),
        (("submit", "{good}", "--params", "fast=5"), "--params: not JSON (Expecting value: line 1 column 1 (char 0))"),
        (("submit", "{good}", "--params", '{{"fast": NaN}}'), "--params: not JSON (NaN is not JSON; use null)"),
        (("run", "{good}", "--params", "[5]"), "--params: must be a JSON object"),
        (("run", "{good}", "--dataset", "x"), "No such option: --dataset"),
        (("sweep",), "Missing argument"),
        (("sweep", "{good}"), "Missing option '--grid'"),
        (("sweep", "{good}", "--grid", "fast"), "--grid fast: write name=start:stop:step or name=value,value"),
        (("sweep", "{good}", "--grid", "x=1:2"), "--grid x=1:2: write start:stop:step"),
        (("sweep", "{good}", "--grid", "x=0:99:1", "--grid", "y=0:100:1"), "--grid: 100 x 101 points"),
        (("sweep", "{good}.none", "--grid", "x=1"), "{good}.none: no such file or directory"),
        (("sweep", "{good}", "--grid", "x=1", "--data", "{good}"), "{good}: not JSON ("),
        (("sweep", "{good}", "--grid", "x=1", "--data", "{good}", "--dataset", "x"), "give either --data or --dataset"),
        (("sweep", "{good}", "--grid", "x=1", "--top", "0"), "Invalid value for '--top'"),
        (("sweep", "{good}", "--grid", "x=1", "--dataset", ""), "dataset: not a reference"),
        (("sweep", "{good}", "--grid", "x=1", "--dataset", "", "--data", "{good}"), "give either --data or --dataset"),
        (("sweep", "{good}", "--grid", "x=1", "--data", "{null}"), "{null}: must hold an object"),
        (("sweep", "{good}", "--grid", "x=1", "--by", ""), "--by: give the name of a number"),
        (("sweep", "{good}", "--grid", "x=1", "--csv", "{good}/x"), "{good}/x: not a directory"),
        (("sweep", "{good}", "--grid", "x=1", "--csv", "{good}"), "{good}: is read or written already"),
        (("sweep", "{good}", "--grid", "x=1", "--csv", "{good}.x", "--json", "{good}.x"), "{good}.x: is read or writ"),
        (("sweep", "{good}", "--grid", "x=1", "--json", "/"), "/: is a directory"),
        (("sweep", "{good}", "--grid", "x=1,2", "--heatmap", "x.png"), "--heatmap: exactly two parameters must have"),
        (("sweep", "{good}", "--grid", "x=1", "--timeout", "61"), "timeout: Input should be less than or equal to 60"),
        (("dataset",), "Missing command."),
        (("dataset", "put"), "Missing argument"),
        (("dataset", "put", "{good}"), "{good}: not JSON ("),
        (("dataset", "put", "{good}.none"), "{good}.none: no such file or directory"),
        (("dead", "fly"), "No such command 'fly'"),
        (("dead", "--json", "show", "x"), "--json: give it after `show`"),
        (("dead", "show"), "Missing argument"),
        (("dead", "show", "x", "y"), "Got unexpected extra argument"),
        (("dead", "requeue"), "give the ids, or --all"),
        (("dead", "requeue", "x", "--all"), "give the ids, or --all"),
        (("dead", "drop"), "give the ids, or --all"),
        (("dead", "drop", "x", "--all"), "give the ids, or --all"),
        (("reconcile", "x"), "Got unexpected extra argument"),
        (("result",), "Missing argument"),
        (("result", "x", "--timeout", "-1"), "Invalid value for '--timeout'"),
        (("worker", "--concurrency", "0"), "Invalid value for '--concurrency'"),
    ],
)
def test_wrong_usage(refused: Callable[..., str], good: Path, arguments: tuple[str, ...], reason: str) -> None:
    """Named before anything is started."""
    (null := good.with_name("null.json")).write_text("null")
    shown = refused(*(argument.format(good=good, null=null) for argument in arguments))
    assert shown.startswith(reason.format(good=good, null=null))
    assert good.read_text() == GOOD


def test_a_wrong_setting(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the operator's to mend: the setting is named, the value is not shown."""
    monkeypatch.setenv("STRATBOX_REDIS_URL", "http://:hunter2@redis.example")
    text = refused("status", "x")
    assert text == "STRATBOX_REDIS_URL: URL scheme should be 'redis' or 'rediss'"


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "x"),
        ("result", "x"),
        ("cancel", "x"),
        ("submit", "{good}"),
        ("submit", "{good}", "--key", "x"),
        ("dead",),
        ("dead", "--json"),
        ("dead", "show", "x"),
        ("dead", "requeue", "x"),
        ("dead", "requeue", "--all"),
        ("dead", "drop", "x"),
        ("dead", "drop", "--all"),
        ("reconcile",),
        ("dataset", "put", "{data}"),
        ("sweep", "{good}", "--grid", "x=1,2"),
    ],
)
def test_redis_down(
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    good: Path,
    arguments: tuple[str, ...],
) -> None:
    """Exit code 3, one line that says what to do."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("STRATBOX_REDIS_URL", f"redis://127.0.0.1:{held.getsockname()[1]}/0")
        (data := good.with_name("data.json")).write_text("[1]")
        code, out, err = run(*(argument.format(good=good, data=data) for argument in arguments))
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert err.endswith("start it, or set STRATBOX_REDIS_URL\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("code: wrong"), 2),
        (UnknownSubmission("no submission 'x'"), 2),
        (UnknownDataset("dataset: x is not in Redis"), 2),
        (BrokerUnavailable("no Redis"), 3),
        (ExecutionLost("given up"), 3),
        (EngineUnavailable("no engine"), 3),
        (ImageMissing("no image"), 3),
        (SandboxStartError("late"), 3),
        (ResultTimeout("not yet"), 1),
        (OutputNotJSON("no"), 1),
        (QueueFull("submit again in 2 s", 2), 4),
        (TenantLimit("submit again in 2 s", 2), 4),
        (DatasetsFull("put it again in 2 s", 2), 4),
    ],
)
def test_every_error_has_its_exit_code(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    """As the help says: 2 refused, 3 infrastructure, 4 no room, 1 otherwise; and one line."""

    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert run() == (code, "", f"stratbox: {error}\n")


def test_an_interrupt_is_exit_code_130(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, good: Path
) -> None:
    """As shells know it, and without a traceback."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "read", interrupt)
    code, out, err = run("validate", good)
    assert (code, out) == (130, "")
    assert "Traceback" not in err


def test_deep_params(refused: Callable[..., str], good: Path) -> None:
    """With the reason, not with the path to the place."""
    params = '{"a":' * 300 + "1" + "}" * 300
    assert refused("run", good, "--params", params) == "--params: nested too deeply, more than 200 levels"


def stratbox(stdout: int | IO[bytes], *arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start the command as a process of its own, for what happens on the way out of the interpreter."""
    command = [sys.executable, "-m", "worker.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE)


def test_a_full_disk_is_one_line(good: Path) -> None:
    """What cannot be printed is not taken for printed."""
    with Path("/dev/full").open("wb") as full, stratbox(full, "validate", good, "--json") as process:
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (1, b"stratbox: standard output: no space left on device\n")


def test_a_reader_that_has_left_is_not_told(good: Path) -> None:
    """`| true`: as other commands do."""
    end, other = os.pipe()
    os.close(end)
    with stratbox(other, "validate", good, "--json") as process:
        os.close(other)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (1, b"")


# A sweep, without Redis: a client that gives what it is told to.


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have every point succeed at once, and something happen when the second is asked for."""

    def install(happens: Callable[[], object] = lambda: None) -> None:
        class Client:
            """Stands in for the client."""

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def sweep(self, _code: str, _data: object, params: Iterable[Any], **_: object) -> Iterator[SweepPoint]:
                for number, one in enumerate(params):
                    if number == 1:
                        happens()
                    result = ExecutionResult(status=ExecutionStatus.SUCCEEDED, output=json.dumps({"sharpe": number}))
                    yield SweepPoint(one, Submission(str(number), None), result)  # type: ignore[arg-type]

        monkeypatch.setattr(command, "StrategyClient", Client)

    return install


def test_a_file_that_cannot_be_written_costs_nothing_else(
    run: Callable[..., tuple[int, str, str]],
    swept: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    good: Path,
    tmp_path: Path,
) -> None:
    """Each failure is one line, the rest is written and shown; the exit code is not 0."""

    def fail(*_: object, **__: object) -> bytes:
        msg = "no\nfont"
        raise RuntimeError(msg)

    swept()
    monkeypatch.setattr(heatmap, "png", fail)
    csv, png, grid = tmp_path / "all.csv", tmp_path / "all.png", ["--grid", "x=1,2", "--grid", "y=1,2"]
    code, out, err = run("sweep", good, *grid, "--csv", "/dev/full", "--json", csv, "--heatmap", png)
    assert code == 1
    assert err.splitlines()[:2] == [
        "not written /dev/full: no space left on device",
        f"not written {png}: no font",
    ]
    assert len(json.loads(csv.read_text())) == 4
    assert len(out.splitlines()) == 6


def test_files_are_written_before_the_table_is_shown(
    run: Callable[..., tuple[int, str, str]],
    swept: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    good: Path,
    tmp_path: Path,
) -> None:
    """Who reads the table may have left."""

    def leave(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    swept()
    monkeypatch.setattr(display, "show_table", leave)
    assert run("sweep", good, "--grid", "x=1,2", "--csv", tmp_path / "all.csv") == (1, "", "")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_ending_signal_is_like_an_interrupt(
    run: Callable[..., tuple[int, str, str]],
    swept: Callable[..., None],
    good: Path,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    """What has ended is shown and written, what was not submitted says so, and the handlers are as they were."""
    before = signal.getsignal(number)
    swept(lambda: signal.raise_signal(number))
    code, out, err = run("sweep", good, "--grid", "x=1,2,3", "--json", tmp_path / "all.json")
    assert (code, len(out.splitlines())) == (130, 3)
    assert "3 points: 1 succeeded, 2 not_run; best" in err
    assert [one["status"] for one in json.loads((tmp_path / "all.json").read_text())] == [
        "succeeded",
        "not_run",
        "not_run",
    ]
    assert signal.getsignal(number) is before


def test_nohup_holds(run: Callable[..., tuple[int, str, str]], swept: Callable[..., None], good: Path) -> None:
    """A signal that is ignored stays so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        swept(lambda: signal.raise_signal(signal.SIGHUP))
        assert run("sweep", good, "--grid", "x=1,2,3")[0] == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_no_command_is_wrong_usage(refused: Callable[..., str]) -> None:
    """One line that names the help."""
    assert refused() == "Missing command. (see stratbox --help)"


def test_help_is_no_error(run: Callable[..., tuple[int, str, str]]) -> None:
    """It names every command and the exit codes."""
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert "Exit" in out
    commands = "run submit result status cancel validate worker flower doctor reconcile dataset dead sweep".split()
    assert [name for name in commands if f"  {name} " not in out] == []


@pytest.mark.parametrize("status", ExecutionStatus)
def test_exit_code_of_a_result(status: ExecutionStatus) -> None:
    """0 succeeded, 2 refused by the policy, 1 for every other end."""
    assert cli._exit_code(status) == {"succeeded": 0, "rejected": 2}.get(str(status), 1)


# validate and worker need neither Docker nor Redis.


def test_validate_clean(run: Callable[..., tuple[int, str, str]], good: Path) -> None:
    """Says so, on stderr."""
    assert run("validate", good) == (0, "", "clean\n")


def test_validate_refused(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """Every violation, each with place, rule and hint."""
    path = tmp_path / "bad.py"
    path.write_text("import os\nimport sys\n")
    code, out, err = run("validate", path)
    assert (code, out) == (2, "")
    assert [line.split(" ")[:2] for line in err.splitlines()[::2]] == [
        [f"{path}:1:8", "R2"],
        [f"{path}:2:8", "R2"],
        ["2", "violations"],
    ]


@pytest.mark.parametrize(("code", "rules"), [(GOOD, []), ("import os\n", ["R2"])])
def test_validate_as_json(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, code: str, rules: list[str]
) -> None:
    """A list on stdout, and nothing else there or elsewhere."""
    path = tmp_path / "x.py"
    path.write_text(code)
    exit_code, out, err = run("validate", path, "--json")
    assert (exit_code, err) == (2 if rules else 0, "")
    assert [violation["rule"] for violation in json.loads(out)] == rules


def test_code_is_validated_byte_for_byte(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """Line ends are not turned into others: a lone carriage return hides code from an editor."""
    path = tmp_path / "x.py"
    path.write_bytes(b"x = 1\n# a\rimport os\n")
    code, _, err = run("validate", path)
    assert code == 2
    assert "R0" in err


def test_the_worker_is_prefork(run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The one pool in which limits and termination work; this process becomes it."""
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, command: started.append([path, *command]))
    assert run("worker", "--concurrency", "3", "--loglevel", "debug")[0] == 0
    python = sys.executable
    flags = ["--pool", "prefork", "--concurrency", "3", "--loglevel", "debug", "--without-gossip", "--without-mingle"]
    assert started == [[python, python, "-m", "celery", "--quiet", "-A", "worker.app", "worker", *flags]]


def test_a_result_as_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """That any program can read, whatever the strategy printed."""
    result = ExecutionResult(status=ExecutionStatus.SUCCEEDED, output="[bold]é\t\x1b\n" + "x" * 500)
    cli._show(result, Path("x.py"), as_json=True)
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1
    assert ExecutionResult.model_validate_json(shown.out) == result


def test_a_result_as_json_is_not_edited(capsys: pytest.CaptureFixture[str]) -> None:
    """`:fire:` is what the strategy printed."""
    result = ExecutionResult(status=ExecutionStatus.SUCCEEDED, output=":fire:")
    cli._show(result, Path("x.py"), as_json=True)
    assert ExecutionResult.model_validate_json(capsys.readouterr().out) == result
