"""Does a test notice when a control is gone? `python tests/security/controls.py [CONTROL…]` switches each off in turn.

For every control the tests that are named with it run against sandboxes that lack it; at least one must fail. What is
built into the runner is switched off by giving the container the runner's changed source as its command.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker import SandboxConfig

HERE = Path(__file__).resolve().parent
SANDBOX = HERE.parents[1] / "worker/sandbox"
#: Enough for all of these tests at once.
SECONDS_PER_CONTROL = 200

#: Ends a program that becomes the runner; out of its modules' files and not their archive, so that changes count.
START = "from worker.sandbox import runner\nrunner.main()\n"

Spec = dict[str, Any]
Change = Callable[[Spec], None]


@dataclass(frozen=True)
class Control:
    """One thing that holds an attack, and how to switch it off."""

    #: Of tests/security, `file.py::function`: at least one must fail without the control.
    tests: tuple[str, ...]
    #: Changes the body of the engine's "create container" call.
    change: Change | None = None
    #: A constant of the worker's, and its value instead.
    constant: tuple[str, Any] | None = None


def sandbox_config(runtime: str | None, control: Control | None) -> SandboxConfig:
    """Return how sandboxes are made, without the control if one is given."""
    if control is None or control.change is None:
        return SandboxConfig(runtime=runtime)
    change: Change = control.change

    class WeakConfig(SandboxConfig):
        def container_spec(self, owner: str) -> Spec:
            spec = super().container_spec(owner)
            change(spec)
            return spec

    return WeakConfig(runtime=runtime)


def host(**settings: Any) -> Change:
    """Set fields of the container's host configuration."""
    return lambda spec: spec["HostConfig"].update(settings)


def container(**settings: Any) -> Change:
    """Set fields of the container itself."""
    return lambda spec: spec.update(settings)


def all_of(*changes: Change) -> Change:
    """Make several changes."""

    def change(spec: Spec) -> None:
        for one in changes:
            one(spec)

    return change


def without_ulimit(name: str) -> Change:
    """Drop one ulimit."""

    def change(spec: Spec) -> None:
        spec["HostConfig"]["Ulimits"] = [one for one in spec["HostConfig"]["Ulimits"] if one["Name"] != name]

    return change


def without_option(prefix: str) -> Change:
    """Drop one security option, which leaves the engine's default."""

    def change(spec: Spec) -> None:
        options = spec["HostConfig"]["SecurityOpt"]
        spec["HostConfig"]["SecurityOpt"] = [one for one in options if not one.startswith(prefix)]

    return change


def seccomp(edit: Callable[[Spec], None]) -> Change:
    """Change the seccomp profile."""

    def change(spec: Spec) -> None:
        (text,) = (one for one in spec["HostConfig"]["SecurityOpt"] if one.startswith("seccomp="))
        profile = json.loads(text.removeprefix("seccomp="))
        edit(profile)
        without_option("seccomp=")(spec)
        spec["HostConfig"]["SecurityOpt"].append(f"seccomp={json.dumps(profile)}")

    return change


def allowing(*calls: str) -> Change:
    """Let system calls through the seccomp profile, whatever their arguments."""

    def edit(profile: Spec) -> None:
        for rule in profile["syscalls"]:
            rule["names"] = [name for name in rule["names"] if name not in calls]
        kept = [rule for rule in profile["syscalls"] if rule["names"]]
        profile["syscalls"] = [*kept, {"names": list(calls), "action": "SCMP_ACT_ALLOW"}]

    return seccomp(edit)


def module(name: str, before: str, after: str) -> Change:
    """Run a runner in which, in one of its modules, one text stands for another."""

    def change(spec: Spec) -> None:
        source = (SANDBOX / f"{name}.py").read_text()
        if source.count(before) != 1:
            msg = f"worker/sandbox/{name}.py does not hold {before!r} exactly once: tests/security/controls.py is stale"
            raise ValueError(msg)
        full_name = f"worker.sandbox.{name}"
        program = (
            "import sys, types, worker.sandbox\n"
            f"module = sys.modules[{full_name!r}] = worker.sandbox.{name} = types.ModuleType({full_name!r})\n"
            f"exec({source.replace(before, after)!r}, module.__dict__)\n"
        )
        spec["Entrypoint"] = ["/python", "-s", "-P", "-c", program + START]

    return change


def runner(before: str, after: str) -> Change:
    """Run a runner in which one text stands for another."""
    return module("runner", before, after)


def through_the_heap(memory: str) -> Change:
    """Run a runner that reads what belongs into some memory into a buffer of its own first."""
    read = f"read_into({memory})"
    return module("channel", read, f"copy = bytearray(len({memory})); read_into(memoryview(copy)); {memory}[:] = copy")


CONTROLS = {
    "network mode none": Control(
        ("test_inside.py::test_only_loopback_and_no_route",),
        all_of(container(NetworkDisabled=False), host(NetworkMode="bridge")),
    ),
    "read-only root": Control(("test_inside.py::test_every_mount_is_read_only_or_masked",), host(ReadonlyRootfs=False)),
    "ipc none": Control(("test_inside.py::test_nothing_is_writable",), host(IpcMode="private")),
    "user 1000:1000": Control(("test_inside.py::test_process_has_no_privilege",), container(User="0:0")),
    "no capabilities": Control(("test_inside.py::test_process_has_no_privilege",), host(CapDrop=[])),
    # With the engine's seccomp profile: under ours a container does not even start without it.
    "no-new-privileges": Control(
        ("test_inside.py::test_process_has_no_privilege",),
        all_of(without_option("no-new-privileges"), without_option("seccomp=")),
    ),
    "hostname": Control(("test_inside.py::test_no_secret_and_a_fixed_environment",), container(Hostname="")),
    "fixed environment": Control(
        ("test_inside.py::test_no_secret_and_a_fixed_environment",), container(Env=["API_KEY=secret"])
    ),
    "pids 32": Control(("test_processes.py::test_fork_bomb", "test_processes.py::test_thread_bomb"), host(PidsLimit=0)),
    "memory 256 MiB": Control(("test_memory.py::test_memory_bomb",), host(Memory=0, MemorySwap=0)),
    "no swap": Control(("test_cis.py::test_item_holds",), host(MemorySwap=-1)),
    "half a core": Control(("test_processes.py::test_cpu_share",), host(NanoCpus=0)),
    "nofile 256": Control(("test_descriptors.py::test_exhaustion_stops_at_256",), without_ulimit("nofile")),
    "core 0": Control(("test_memory.py::test_limits_cannot_be_raised",), without_ulimit("core")),
    "msgqueue 0": Control(("test_memory.py::test_limits_cannot_be_raised",), without_ulimit("msgqueue")),
    "no log": Control(("test_output.py::test_the_engine_keeps_no_copy",), host(LogConfig={"Type": "json-file"})),
    "AutoRemove": Control(("test_lifetime.py::test_hang_up_removes_the_container",), host(AutoRemove=False)),
    "StdinOnce": Control(("test_lifetime.py::test_hang_up_removes_the_container",), container(StdinOnce=False)),
    "seccomp profile": Control(("test_kernel.py::test_no_socket_of_any_family",), without_option("seccomp=")),
    "seccomp: sockets": Control(("test_kernel.py::test_no_socket_of_any_family",), allowing("socket", "socketpair")),
    "seccomp: io_uring": Control(
        ("test_kernel.py::test_system_calls_are_refused",), allowing("io_uring_setup", "io_uring_enter")
    ),
    "seccomp: splice": Control(
        ("test_kernel.py::test_system_calls_are_refused",), allowing("splice", "tee", "vmsplice")
    ),
    "seccomp: SysV IPC": Control(
        ("test_kernel.py::test_system_calls_are_refused",), allowing("shmget", "shmat", "semget", "msgget")
    ),
    "seccomp: message queues": Control(("test_kernel.py::test_system_calls_are_refused",), allowing("mq_open")),
    "seccomp: ptrace": Control(("test_kernel.py::test_system_calls_are_refused",), allowing("ptrace")),
    "seccomp: process_vm": Control(
        ("test_kernel.py::test_system_calls_are_refused",), allowing("process_vm_readv", "process_vm_writev")
    ),
    "seccomp: pidfd": Control(("test_kernel.py::test_system_calls_are_refused",), allowing("pidfd_open")),
    "seccomp: file handles": Control(("test_kernel.py::test_system_calls_are_refused",), allowing("name_to_handle_at")),
    "seccomp: changes of files": Control(
        ("test_kernel.py::test_system_calls_are_refused",), allowing("symlinkat", "linkat", "mknodat", "fchmodat")
    ),
    "seccomp: keys": Control(("test_kernel.py::test_system_calls_are_refused",), allowing("keyctl")),
    "seccomp: bpf, perf, userfaultfd": Control(
        ("test_kernel.py::test_system_calls_are_refused",), allowing("bpf", "perf_event_open", "userfaultfd")
    ),
    "seccomp: clone flags": Control(("test_kernel.py::test_no_new_namespace",), allowing("clone")),
    "seccomp: clone3": Control(("test_kernel.py::test_no_new_namespace",), allowing("clone3")),
    "seccomp: unshare": Control(("test_kernel.py::test_no_new_namespace",), allowing("unshare")),
    "seccomp: prlimit of others": Control(("test_runner.py::test_priority_and_limits",), allowing("prlimit64")),
    "seccomp: scheduling of others": Control(
        ("test_runner.py::test_priority_and_limits",), allowing("sched_setscheduler", "sched_setattr")
    ),
    "seccomp: affinity of others": Control(
        ("test_runner.py::test_priority_and_limits",), allowing("sched_setaffinity")
    ),
    "seccomp: priority of others": Control(("test_runner.py::test_priority_and_limits",), allowing("setpriority")),
    "seccomp: ioprio": Control(("test_runner.py::test_priority_and_limits",), allowing("ioprio_set")),
    "seccomp: prctl": Control(("test_kernel.py::test_prctl_and_ioctl_are_filtered",), allowing("prctl")),
    "seccomp: ioctl": Control(("test_kernel.py::test_prctl_and_ioctl_are_filtered",), allowing("ioctl")),
    "seccomp: huge pages": Control(("test_kernel.py::test_no_huge_page_is_taken",), allowing("mmap", "memfd_create")),
    "seccomp: foreign ABIs": Control(
        ("test_kernel.py::test_no_foreign_abi",),
        seccomp(lambda profile: profile.update(architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])),
    ),
    "runner: not dumpable": Control(
        ("test_runner.py::test_proc_1_is_closed",),
        runner("    set_dumpable(False)\n    # What has no handler", "    # What has no handler"),
    ),
    "runner: no handler for SIGINT": Control(
        ("test_runner.py::test_signal_storm",), runner("    signal.signal(signal.SIGINT, signal.SIG_DFL)\n", "")
    ),
    "runner: seals": Control(
        ("test_descriptors.py::test_the_data_file_is_sealed",),
        module("channel", "    fcntl.fcntl(data_fd, fcntl.F_ADD_SEALS, SEALS)\n", ""),
    ),
    "runner: closerange": Control(
        ("test_descriptors.py::test_no_descriptor_is_inherited",),
        module("standby", '    os.closerange(len(descriptors), os.sysconf("SC_OPEN_MAX"))\n', ""),
    ),
    "runner: gate and word closed": Control(
        ("test_descriptors.py::test_no_descriptor_is_inherited",),
        module("standby", "    os.close(GATE_FD)\n    os.close(WORD_FD)\n", ""),
    ),
    "runner: kill(-1)": Control(
        ("test_processes.py::test_daemons_end_with_the_run",),
        runner("                os.kill(-1, signal.SIGKILL)\n", "                pass\n"),
    ),
    "runner: the strategy waits for the token": Control(
        ("test_forgery.py::test_a_forged_report_is_no_verdict",),
        runner(
            "        channel.send(Frame.STARTED, token.encode())\n"
            "        supervisor.outlet.kinds = {standby.stdout: Frame.STDOUT, standby.stderr: Frame.STDERR}\n"
            "        standby.run()\n",
            "        standby.run()\n"
            "        channel.send(Frame.STARTED, token.encode())\n"
            "        supervisor.outlet.kinds = {standby.stdout: Frame.STDOUT, standby.stderr: Frame.STDERR}\n",
        ),
    ),
    "runner: the token is made after the fork": Control(
        ("test_forgery.py::test_a_forged_report_is_no_verdict",),
        runner(
            "    standby = Standby.ready()\n    channel.send_json(Frame.READY",
            "    early = os.urandom(TOKEN_BYTES)\n"
            "    text, urandom = early.hex(), os.urandom\n"
            "    os.urandom = lambda size: early if size == TOKEN_BYTES else urandom(size)\n"
            "    standby = Standby.ready()\n    channel.send_json(Frame.READY",
        ),
    ),
    "runner: setsid": Control(
        ("test_inside.py::test_process_has_no_privilege",), module("standby", "    os.setsid()\n", "")
    ),
    "runner: oom_score_adj": Control(
        ("test_memory.py::test_child_dies_first",), module("standby", 'adjustment, b"1000"', 'adjustment, b"0"')
    ),
    "runner: output cap": Control(
        ("test_output.py::test_flood_of_both_streams",), runner("kept = min(count, self.budget)", "kept = count")
    ),
    "runner: deadline": Control(
        ("test_processes.py::test_deadline",), runner("deadline - time.monotonic()", "deadline + 1e6")
    ),
    "runner: end of input": Control(
        ("test_lifetime.py::test_hang_up_removes_the_container",),
        runner("            leave()  # the worker hung up", "            poll.unregister(fd)  # the worker hung up"),
    ),
    "runner: count of OOM kills": Control(
        ("test_memory.py::test_kill_of_a_child_is_not_hidden",),
        runner("oom_kills(oom_counter) - oom_before", "0"),
    ),
    "runner: who stands by is watched": Control(
        ("test_lifetime.py::test_the_end_of_who_stands_by_removes_the_container",),
        runner("if os.waitpid(standby.pid, os.WNOHANG)[0]:", "if False:"),
    ),
    "reuse: output is not copied into forks": Control(
        ("test_reuse.py::test_nothing_of_a_run_is_in_the_memory_of_the_next",),
        module("channel", "    memory.madvise(mmap.MADV_DONTFORK)\n", ""),
    ),
    "reuse: output is in no buffer of the heap": Control(
        ("test_reuse.py::test_nothing_of_a_run_is_in_the_memory_of_the_next",),
        module("channel", "os.write(CONTROL_OUT, data)", "os.write(CONTROL_OUT, bytes(data))"),
    ),
    "reuse: code is in no buffer of the heap": Control(
        ("test_reuse.py::test_nothing_of_a_run_is_in_the_memory_of_the_next",),
        through_the_heap("room"),
    ),
    "reuse: data is in no buffer of the heap": Control(
        ("test_reuse.py::test_nothing_of_a_run_is_in_the_memory_of_the_next",),
        through_the_heap("piece"),
    ),
    "reuse: options and source are freed": Control(
        ("test_reuse.py::test_nothing_of_a_run_is_in_the_memory_of_the_next",),
        module("standby", "        self.task.close()\n", ""),
    ),
    "reuse: the explanation is freed": Control(
        ("test_reuse.py::test_nothing_of_a_run_is_in_the_memory_of_the_next",),
        module("standby", "        self.answer.close()\n", ""),
    ),
    "reuse: the explanation of a clean end is not read": Control(
        ("test_reuse.py::test_nothing_of_a_run_is_in_the_memory_of_the_next",),
        runner('(strategy.EXPLANATION_BYTES) if exit_code else b""', '(strategy.EXPLANATION_BYTES) if token else b""'),
    ),
    "reuse: descriptors are freed": Control(
        ("test_reuse.py::test_many_runs_wear_nothing_out",),
        module(
            "standby",
            "        for fd in (self.data, self.stdout, self.stderr, self.gate, self.word):\n"
            "            os.close(fd)\n",
            "",
        ),
    ),
    "reuse: kill(-1)": Control(
        ("test_reuse.py::test_no_process_stays_for_the_next",),
        runner(
            "                os.kill(-1, signal.SIGKILL)\n", "                os.kill(self.child, signal.SIGKILL)\n"
        ),
    ),
    "reuse: generators get a seed": Control(
        ("test_reuse.py::test_draws_are_fresh_unless_a_seed_says_otherwise",),
        module(
            "strategy",
            'seed is not None or "numpy.random" in sys.modules)',
            "seed is not None)",
        ),
    ),
    "reuse: only after a clean end": Control(
        (
            "test_reuse.py::test_after_any_other_end_the_container_goes",
            "test_reuse.py::test_after_a_refusal_the_container_goes",
        ),
        constant=("worker.sandbox.ending.Ending.clean", True),
    ),
    "reuse: of one tenant only": Control(
        ("test_reuse.py::test_no_two_tenants_ever_share",),
        constant=(
            "worker.sandbox.pool.SandboxPool._take_kept",
            lambda pool, _: pool._kept.pop().sandbox if pool._kept else None,
        ),
    ),
    "reuse: bounded": Control(
        ("test_reuse.py::test_runs_and_age_have_a_bound",),
        constant=("worker.sandbox.pool.SandboxPool._may_serve", lambda _, sandbox: sandbox.alive()),
    ),
    "worker: deadline": Control(
        ("test_impostor.py::test_silence_ends_at_the_deadline",),
        constant=("worker.sandbox.container.DEADLINE_GRACE_SECONDS", 1000.0),
    ),
    "worker: frame size": Control(
        ("test_impostor.py::test_lies_end_the_conversation",),
        constant=("worker.sandbox.frames.MAX_PAYLOAD_BYTES", 2**32),
    ),
    "worker: diagnostics cap": Control(
        ("test_impostor.py::test_flood_of_stderr_is_bounded",),
        constant=("worker.sandbox.stream.MAX_DIAGNOSTICS_BYTES", 2**40),
    ),
}


#: What pytest says when it was the sandbox that failed to start, which proves nothing.
BROKEN = re.compile(r"SandboxStartError|ImageMissing|EngineUnavailable|ValueError: worker/sandbox/")


def failures(tests: Iterable[str], without: str = "") -> list[str]:
    """Return which of the tests fail while one control is off.

    Raises:
        RuntimeError: they could not be run to an end.
    """
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-rf", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "SECURITY_WITHOUT": without, "SECURITY_RUNTIMES": "runc"}
    options: dict[str, Any] = {"cwd": HERE, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(command, timeout=SECONDS_PER_CONTROL, check=False, **options)
    if done.returncode > 1 or BROKEN.search(done.stdout):
        raise RuntimeError(" ".join((done.stdout + done.stderr).split())[-400:])
    return re.findall(r"^FAILED \S*?::(.+?)(?: - |$)", done.stdout, re.MULTILINE)


def tell(line: str) -> None:
    """Print one line as soon as it is known."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(names: list[str]) -> int:
    """Print a table of controls and the tests that miss them; return 1 if nothing misses one."""
    chosen = {name: CONTROLS[name] for name in names} if names else CONTROLS
    if failed := failures(sorted({test for control in chosen.values() for test in control.tests})):
        tell(f"with all controls on, these fail already: {', '.join(failed)}")
        return 1
    unnoticed = 0
    tell("| control switched off | what fails then |\n|---|---|")
    for name, control in chosen.items():
        try:
            noticed = failures(control.tests, name)
        except (RuntimeError, subprocess.TimeoutExpired) as exc:
            noticed, outcome = [], f"NO VERDICT: {exc}"
        else:
            outcome = ", ".join(f"`{test}`" for test in noticed) or "NOTHING"
        unnoticed += not noticed
        tell(f"| {name} | {outcome} |")
    tell(f"\n{len(chosen) - unnoticed} of {len(chosen)} controls are missed when they are gone")
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
