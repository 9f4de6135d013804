"""The MCP server as hosts use it: a real process on its stdin and stdout, a real Redis, worker and containers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis
from jsonschema import Draft202012Validator
from local import private_redis
from mcp import Client, StdioServerParameters, stdio_client

from tasks import ExecutionLimits, ExecutionStatus, Settings, StrategyClient
from tasks.mcp_server import StrategyTools
from tasks.policy import DEFAULT_POLICY
from tasks.tool import Answer, run_strategy_tool, schema
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mcp.types import CallToolResult

    from tasks import ExecutionRequest, Submission

SERVER = ["-m", "worker.cli", "mcp", "--user", "alice"]
NO_REDIS = "redis://127.0.0.1:1/0"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
SHARPE = """\
import json
data = json.load(open('/workspace/data.json'))
print(json.dumps({'sharpe': sum(data['close']) * data['params']['factor']}))
"""
LOOP = "secret_alpha = 1\nprint('begun', flush=True)\nwhile True:\n    pass\n"

pytestmark = pytest.mark.usefixtures("worker_process")


@contextlib.asynccontextmanager
async def host(redis_url: str, mode: str = "auto", **environment: str) -> AsyncIterator[Client]:
    """Start a server as a host does and connect to it; what it logs must be nothing."""
    env = os.environ | {"STRATBOX_REDIS_URL": redis_url} | environment
    with tempfile.TemporaryFile("w+") as log:
        server = StdioServerParameters(command=sys.executable, args=SERVER, env=env)
        async with Client(stdio_client(server, errlog=log), mode=mode, read_timeout_seconds=60) as agent:
            yield agent
        log.seek(0)
        assert log.read() == ""


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Return what a tool gives, which is text and structure alike."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    assert json.loads(text_of(result)) == result.structured_content
    return result.structured_content


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """Return the one line that a call which goes wrong gives."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    line = text_of(result)
    assert len(line.splitlines()) == 1
    return line


def text_of(result: CallToolResult) -> str:
    """Return the text of a result, which has nothing else."""
    (content,) = result.content
    assert content.type == "text"
    return content.text


def unfinished(client: StrategyClient) -> dict[str, str]:
    """Return id and tenant of what the ledger has accepted and not ended."""
    store = client._app.backend.client
    return {
        key.decode().rpartition(":")[2]: tenant.decode()
        for key in store.scan_iter("*task:*")
        if (tenant := store.hget(key, "tenant")) is not None
    }


def running(client: StrategyClient) -> dict[str, str]:
    """Return those of them that run."""
    return {one: tenant for one, tenant in unfinished(client).items() if client.submission(one).status() == "running"}


async def test_the_tools_are_listed_with_the_contract_s_own_schema(redis_url: str) -> None:
    """What is asked for with `run_strategy` cannot drift from what a request is, nor from the tool of `tasks.tool`."""
    async with host(redis_url) as agent:
        tools = {tool.name: tool for tool in (await agent.list_tools()).tools}
    assert list(tools) == ["validate", "run_strategy", "submit", "result", "cancel", "policy"]
    function = run_strategy_tool()["function"]
    assert tools["run_strategy"].description == function["description"]
    assert tools["run_strategy"].input_schema == tools["submit"].input_schema == function["parameters"]
    assert tools["run_strategy"].output_schema == schema(Answer)
    code = tools["validate"].input_schema["properties"]["code"]
    assert code == function["parameters"]["properties"]["code"]
    for tool in tools.values():
        assert tool.description
        Draft202012Validator.check_schema(tool.input_schema)
        Draft202012Validator.check_schema(tool.output_schema or False)
        assert tool.input_schema["additionalProperties"] is False
    hints = {name: tool.annotations for name, tool in tools.items()}
    assert [name for name, hint in hints.items() if hint and hint.read_only_hint] == ["validate", "result", "policy"]
    assert [name for name, hint in hints.items() if hint and hint.destructive_hint] == ["cancel"]


async def test_a_host_of_the_older_protocol_is_served_as_well(redis_url: str) -> None:
    """One that begins with `initialize`."""
    async with host(redis_url, mode="legacy") as agent:
        assert (await call(agent, "run_strategy", code="print(7)"))["output"] == "7\n"


async def test_code_is_validated_without_running_it(redis_url: str) -> None:
    """Good code is clean; of bad code every violation comes with its line and a hint."""
    async with host(redis_url) as agent:
        assert await call(agent, "validate", code="print(1)") == {"clean": True, "violations": []}
        told = await call(agent, "validate", code="x = 1\nimport os\nimport socket\n")
    assert told["clean"] is False
    assert [(one["rule"], one["line"]) for one in told["violations"]] == [("R2", 2), ("R2", 3)]
    assert all(one["hint"] for one in told["violations"])


async def test_a_strategy_runs_with_its_data(redis_url: str, client: StrategyClient) -> None:
    """Inline, or by reference to a data set; the parameters are in both."""
    ref = client.datasets.put({"close": [1, 2, 3]})
    async with host(redis_url) as agent:
        given: dict[str, Any]
        for given in ({"data": {"close": [1, 2, 3]}}, {"dataset": ref.digest}):
            told = await call(agent, "run_strategy", code=SHARPE, params={"factor": 2}, timeout=20, seed=1, **given)
            assert told["status"] == "succeeded"
            assert json.loads(told["output"]) == {"sharpe": 12}
            assert told["error"] is None
            assert told["metrics"]["wall_seconds"] > 0
            assert told["metrics"]["peak_memory_bytes"] > 2**20


async def test_text_that_is_json_stays_text(redis_url: str) -> None:
    """As code, and as data: nobody guesses what a model may have meant."""
    async with host(redis_url) as agent:
        for code in ("1", '"print"', "[1, 2]", '{"code": 1}'):
            assert (await call(agent, "validate", code=code))["clean"] is True
            assert (await call(agent, "run_strategy", code=code))["status"] == "succeeded"
        told = await call(agent, "run_strategy", code="print(open('/workspace/data.json').read())", data='{"a": [1]}')
    assert told["output"] == '"{\\"a\\": [1]}"\n'


async def test_a_strategy_that_does_not_succeed_says_why(redis_url: str) -> None:
    """Violations of what was refused; of what raised, the traceback with its line."""
    async with host(redis_url) as agent:
        rejected = await call(agent, "run_strategy", code="import os\n")
        failed = await call(agent, "run_strategy", code="def signal(x):\n    return 1 / x\n\nsignal(0)\n")
    assert rejected["status"] == "rejected"
    assert [(one["rule"], one["line"]) for one in rejected["violations"]] == [("R2", 1)]
    assert failed["status"] == "failed"
    assert (failed["error"]["type"], failed["error"]["line"]) == ("ZeroDivisionError", 2)
    assert "line 4" in failed["error"]["traceback"]


async def test_a_megabyte_of_output_comes_back_bounded(redis_url: str) -> None:
    """With its end, unless it went over the limit, which is said; nothing in it acts."""
    async with host(redis_url) as agent:
        for repeats, truncated in ((250_000, False), (300_000, True)):
            code = f"print('\\x1b[2J' * {repeats})\nprint('the end')\n"
            told = await call(agent, "run_strategy", code=code)
            assert told["status"] == "succeeded"
            assert told["truncated"] is truncated
            assert told["output"].endswith("the end\n") is not truncated
            assert "characters left out" in told["output"]
            assert "\x1b" not in told["output"]
            assert len(json.dumps(told)) < 30_000


async def test_a_long_one_is_submitted_followed_and_cancelled(redis_url: str, client: StrategyClient) -> None:
    """It belongs to the server's user; what it has printed by then is kept."""
    async with host(redis_url) as agent:
        submission_id = (await call(agent, "submit", code=LOOP))["submission_id"]
        assert unfinished(client) == {submission_id: "alice"}
        await asyncio.to_thread(until, lambda: running(client))
        begun = time.monotonic()
        assert await call(agent, "result", submission_id=submission_id, wait_seconds=1) == {
            "status": "running",
            "answer": None,
        }
        assert 1 <= time.monotonic() - begun < 10
        assert await call(agent, "cancel", submission_id=submission_id) == {"cancelled": True}
        told = await call(agent, "result", submission_id=submission_id, wait_seconds=20)
        assert told["status"] == told["answer"]["status"] == "cancelled"
        assert told["answer"]["output"] == "begun\n"
        assert await call(agent, "cancel", submission_id=submission_id) == {"cancelled": False}


async def test_a_call_that_is_cancelled_cancels_its_strategy(redis_url: str, client: StrategyClient) -> None:
    """It runs, the host waits no longer, and its container is ended; the server serves on."""
    async with host(redis_url) as agent:
        waiting = asyncio.create_task(agent.call_tool("run_strategy", {"code": LOOP}))
        ((submission_id, tenant),) = (await asyncio.to_thread(until, lambda: running(client))).items()
        assert tenant == "alice"
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        result = await client.submission(submission_id).result_async(20)
        assert result.status is ExecutionStatus.CANCELLED
        assert (await call(agent, "validate", code="1"))["clean"] is True


async def test_the_policy_tells_modules_names_and_limits(redis_url: str) -> None:
    """Those in force, an operator's additions and limits included."""
    environment = {
        "STRATBOX_POLICY_EXTRA_MODULES": '{"calendar": ["monthrange"]}',
        "STRATBOX_LIMITS_TIMEOUT_SECONDS": "7",
    }
    async with host(redis_url, **environment) as agent:
        told = await call(agent, "policy")
        assert (await call(agent, "validate", code="from calendar import monthrange"))["clean"] is True
    assert set(told["modules"]) == {*DEFAULT_POLICY.modules, "calendar"}
    assert told["modules"]["math"] == sorted(DEFAULT_POLICY.modules["math"])
    assert told["modules"]["calendar"] == ["monthrange"]
    assert told["limits"] == ExecutionLimits(timeout_seconds=7).model_dump()
    assert "/workspace/data.json" in told["contract"]
    assert "Limits: 7 s, 256 MiB" in told["contract"]


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("result", {"submission_id": UNKNOWN}, f"no submission '{UNKNOWN}'"),
    ("cancel", {"submission_id": UNKNOWN}, f"no submission '{UNKNOWN}'"),
    ("result", {"submission_id": "x" * 36}, "submission_id: "),
    ("result", {"submission_id": UNKNOWN, "wait_seconds": 61}, "wait_seconds: "),
    ("run_strategy", {"code": "print(1)", "user_id": "bob"}, "user_id: "),
    ("submit", {"code": "print(1)", "user_id": "bob"}, "user_id: "),
    ("validate", {"code": "print(1)", "user_id": "bob"}, "user_id: "),
    ("policy", {"user_id": "bob"}, "user_id: "),
    ("run_strategy", {}, "code: "),
    ("run_strategy", {"code": "print(1)", "timeout": 61}, "timeout: "),
    ("run_strategy", {"code": "print(1)", "a\nb": 1}, "a\\nb: "),
    ("run_strategy", {"code": "print(1)", "dataset": "0" * 64}, "put it again"),
    ("validate", {"code": 1}, "code: "),
    ("execute", {"code": "print(1)"}, "no tool 'execute'"),
]


async def test_what_is_wrong_is_one_line(redis_url: str, client: StrategyClient) -> None:
    """An unknown id, a wrong argument, another user's name: the model reads which, and nothing was submitted."""
    async with host(redis_url) as agent:
        for tool, arguments, says in WRONG:
            assert says in await refusal(agent, tool, **arguments), (tool, arguments)
    assert unfinished(client) == {}


async def test_without_redis_what_needs_none_works() -> None:
    """The server starts, checks code and tells the policy; the rest says in one line what to do."""
    async with host(NO_REDIS) as agent:
        assert (await call(agent, "validate", code="import os"))["clean"] is False
        assert (await call(agent, "policy"))["modules"]["math"]
        for tool in ("run_strategy", "submit"):
            assert "set STRATBOX_REDIS_URL" in await refusal(agent, tool, code="print(1)")
        for tool in ("result", "cancel"):
            assert "set STRATBOX_REDIS_URL" in await refusal(agent, tool, submission_id=UNKNOWN)


async def test_a_queue_that_is_full_says_when_to_come_again(redis_url: str) -> None:
    """In the line, which is all that a model reads."""
    async with host(redis_url, STRATBOX_MAX_PER_TENANT="1") as agent:
        submission_id = (await call(agent, "submit", code=LOOP))["submission_id"]
        assert "submit again in" in await refusal(agent, "run_strategy", code="print(1)")
        assert (await call(agent, "cancel", submission_id=submission_id))["cancelled"] is True
        await call(agent, "result", submission_id=submission_id, wait_seconds=20)


def message(method: str, number: int | None = None, **params: Any) -> str:
    """Return a line of the protocol."""
    fields = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps({name: value for name, value in fields.items() if value is not None}) + "\n"


HELLO = message(
    "initialize",
    1,
    protocolVersion="2025-06-18",
    capabilities={},
    clientInfo={"name": "test", "version": "1"},
)


@contextlib.contextmanager
def bare(redis_url: str) -> Iterator[subprocess.Popen[str]]:
    """Start a server without a client of the SDK's, and say hello."""
    env, pipe = os.environ | {"STRATBOX_REDIS_URL": redis_url}, subprocess.PIPE
    command = [sys.executable, *SERVER]
    with subprocess.Popen(command, env=env, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as server:
        try:
            assert server.stdin
            server.stdin.write(HELLO + message("notifications/initialized"))
            server.stdin.flush()
            yield server
        finally:
            server.kill()


def test_a_host_that_goes_away_ends_server_and_strategy(redis_url: str, client: StrategyClient) -> None:
    """No process is left; every line on stdout was the protocol's, and no code is in the log."""
    with bare(redis_url) as server:
        assert server.stdin
        server.stdin.write(message("tools/call", 2, name="run_strategy", arguments={"code": LOOP}))
        server.stdin.write('{"secret_alpha": not JSON\n')
        server.stdin.write(message("tools/call", 3, name="validate", arguments={"code": "secret_alpha = 1"}))
        server.stdin.flush()
        (submission_id,) = until(lambda: running(client))
        written, logged = server.communicate(timeout=15)  # which closes stdin
        assert server.returncode == 0
    assert client.submission(submission_id).result(20).status is ExecutionStatus.CANCELLED
    answers = {answer["id"]: answer for answer in map(json.loads, written.splitlines())}
    assert answers[3]["result"]["structuredContent"]["clean"] is True
    assert answers[None]["error"]["code"] == -32700
    assert "secret_alpha" not in logged
    assert logged.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "number", "code"),
    [
        ('{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"x": "\\ud83d"}}', 7, -32700),
        ('{"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": ' + "[" * 300 + "]" * 300 + "}", "a", -32700),
        ('{"jsonrpc": "2.0", "method": "tools/call", "params": {"x": ' + "9" * 5000 + '}, "id": 7}', 7, -32700),
        ('{"jsonrpc": "2.0", "id": 7}', 7, -32600),
        ('{"jsonrpc": "2.0", "id": true, "x": 1}', None, -32600),
        ('{"jsonrpc": "2.0", "id": "\\ud800", "method": "ping"}', None, -32700),
        ('{"jsonrpc": "2.0", "id": ' + "7" * 30 + ', "x": 1}', None, -32600),
        ("[]", None, -32600),
        ("not JSON", None, -32700),
        ('\n\n{"jsonrpc": "2.0", "id": 5, "result": {"a": "\\ud800"}}\n{"id": 6}', 6, -32600),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_answered(line: str, number: object, code: int) -> None:
    """Its host would wait for its own timeout."""
    with bare(NO_REDIS) as server:
        assert server.stdin
        assert server.stdout
        assert "serverInfo" in server.stdout.readline()
        server.stdin.write(f"{line}\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        assert (answer["id"], answer["error"]["code"]) == (number, code)
        server.stdin.close()
        assert server.wait(15) == 0


def test_a_redis_that_hangs_does_not_keep_others_waiting() -> None:
    """`validate` needs none, however many calls do."""
    with private_redis() as url, redis.Redis.from_url(url) as store, bare(url) as server:
        assert server.stdin
        assert server.stdout
        hung = int(store.info("server")["process_id"])
        os.kill(hung, signal.SIGSTOP)
        try:
            for call_number in range(2, 22):
                server.stdin.write(message("tools/call", call_number, name="submit", arguments={"code": "1"}))
            server.stdin.write(message("tools/call", 99, name="validate", arguments={"code": "1"}))
            server.stdin.flush()
            began = time.monotonic()
            answers = [json.loads(server.stdout.readline())["id"] for _ in range(2)]
            assert answers == [1, 99]
            assert time.monotonic() - began < 15
        finally:
            os.kill(hung, signal.SIGCONT)


async def test_what_a_key_makes_is_out_of_reach(redis_url: str, client: StrategyClient) -> None:
    """Whoever guesses another's key could compute its id."""
    theirs = client.submit("print('secret_alpha')", user_id="bob", key="2026-11-24/7")
    assert theirs.result(30).success
    async with host(redis_url) as agent:
        for tool in ("result", "cancel"):
            assert "submission_id" in await refusal(agent, tool, submission_id=theirs.id)


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_without_a_host_it_says_so(closed: str) -> None:
    """In one line."""
    command = f'"{sys.executable}" -m worker.cli mcp --user alice {closed}'
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "a host that speaks MCP has to start this" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_server_that_is_ended_ends_its_strategy(redis_url: str, client: StrategyClient, number: int) -> None:
    """As hosts do that do not wait for it to see the end of its input."""
    with bare(redis_url) as server:
        assert server.stdin
        server.stdin.write(message("tools/call", 2, name="run_strategy", arguments={"code": LOOP}))
        server.stdin.flush()
        (submission_id,) = until(lambda: running(client))
        server.send_signal(number)
        assert server.wait(15) == -number
        assert client.submission(submission_id).result(20).status is ExecutionStatus.CANCELLED
        assert server.stderr
        assert server.stderr.read() == ""


def test_a_host_that_reads_no_more_ends_the_server(redis_url: str) -> None:
    """And gets no traceback."""
    with bare(redis_url) as server:
        assert server.stdin
        assert server.stdout
        assert "serverInfo" in server.stdout.readline()
        server.stdout.close()
        server.stdin.write(message("tools/call", 3, name="validate", arguments={"code": "1"}))
        server.stdin.flush()
        time.sleep(1)
        server.stdin.close()
        assert server.wait(15) == 0
        assert server.stderr
        assert server.stderr.read() == ""


def test_ctrl_c_ends_the_server_at_once() -> None:
    """Although nothing comes on stdin."""
    with bare(NO_REDIS) as server:
        assert server.stdout
        assert "serverInfo" in server.stdout.readline()
        server.send_signal(signal.SIGINT)
        assert server.wait(5) == -signal.SIGINT


class Broken(StrategyClient):
    """A client with a mistake in it."""

    def submit_as(self, submission: Submission, request: ExecutionRequest, **_: Any) -> None:
        """Fail with what nobody but its owner may read."""
        del submission
        raise RuntimeError(request.code)


async def test_a_mistake_of_ours_tells_nobody_the_code(caplog: pytest.LogCaptureFixture) -> None:
    """The model reads that it is not its fault, the log where; the server serves on."""
    with Broken(Settings(redis_url=NO_REDIS)) as client:
        tools = StrategyTools(client, "alice", ExecutionLimits())
        told = await tools.call("submit", {"code": "secret_alpha = 1"})
        assert (await tools.call("validate", {"code": "secret_alpha = 1"})).is_error is False
    assert told.is_error
    assert text_of(told) == "the server has failed, its log says where: this is not the strategy's fault"
    assert "RuntimeError in the tool submit" in caplog.text
    assert "submit_as" in caplog.text
    assert "secret_alpha" not in caplog.text


@pytest.mark.parametrize(("user", "says"), [("a\nb", "user_id: "), ("x" * 129, "user_id: ")])
def test_a_wrong_name_of_a_user_is_refused_at_once(user: str, says: str) -> None:
    """Not with each call; it is one line, with the exit code for wrong usage."""
    command = [sys.executable, *SERVER[:-1], user]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_the_sdk_the_command_says_what_to_install() -> None:
    """It is an extra."""
    program = "import sys; sys.modules['mcp'] = None; sys.argv = ['stratbox', 'mcp', '--user', 'alice']\n"
    command = [sys.executable, "-c", program + "from worker.cli import main\nmain()"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "stratbox: mcp is not installed: pip install 'stratbox[mcp]'\n"
