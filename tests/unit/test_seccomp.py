"""The seccomp profile, read as the data it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from worker.sandbox.config import SECCOMP_PROFILE, SandboxConfig

PROFILE: dict[str, Any] = json.loads(SECCOMP_PROFILE)
#: Call -> the arguments it is allowed with; None for any.
ALLOWED: dict[str, Any] = {
    name: rule.get("args")
    for rule in PROFILE["syscalls"]
    if rule["action"] == "SCMP_ACT_ALLOW"
    for name in rule["names"]
}
CLONE_NEW = {
    "NEWNS": 0x20000,
    "NEWCGROUP": 0x2000000,
    "NEWUTS": 0x4000000,
    "NEWIPC": 0x8000000,
    "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000,
    "NEWNET": 0x40000000,
    "PIDFD": 0x1000,
}


@pytest.mark.parametrize(
    "family",
    [
        "socket socketpair connect bind listen accept accept4 sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg",
        "io_uring_setup io_uring_enter io_uring_register io_setup io_submit",
        "splice tee vmsplice sendfile copy_file_range",
        "shmget shmat shmctl msgget msgsnd msgrcv msgctl semget semop semctl semtimedop",
        "mq_open mq_unlink mq_timedsend mq_timedreceive",
        "ptrace process_vm_readv process_vm_writev process_madvise pidfd_open pidfd_getfd pidfd_send_signal kcmp",
        "name_to_handle_at open_by_handle_at mknod mknodat link linkat symlink symlinkat setxattr fsetxattr",
        "unshare setns mount umount2 pivot_root chroot move_mount fsopen open_tree",
        "bpf perf_event_open keyctl add_key request_key userfaultfd seccomp landlock_create_ruleset memfd_secret",
        "init_module finit_module kexec_load reboot swapon acct settimeofday clock_settime adjtimex",
        "sched_setaffinity sched_setscheduler sched_setparam sched_setattr setpriority ioprio_set personality",
        "setuid setgid setresuid setresgid setgroups capset execveat chmod chown unlink rename mkdir truncate",
    ],
    ids=lambda family: str(family).partition(" ")[0],
)
def test_what_a_strategy_has_no_use_for_is_refused(family: str) -> None:
    """None of a family is on the list."""
    assert not ALLOWED.keys() & set(family.split())


def test_refused_with_an_error_not_with_a_kill() -> None:
    """A library that tries something and falls back goes on."""
    assert PROFILE["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {rule["action"] for rule in PROFILE["syscalls"]} == {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}


def test_no_foreign_system_call_tables() -> None:
    """Without a list of architectures, the filter admits the machine's own alone."""
    assert not PROFILE.keys() & {"architectures", "archMap"}


@pytest.mark.parametrize("flag", CLONE_NEW.values(), ids=CLONE_NEW)
def test_clone_makes_no_namespace_and_no_pidfd(flag: int) -> None:
    """Each of the flags is under the mask that must be zero."""
    (condition,) = ALLOWED["clone"]
    assert condition["op"] == "SCMP_CMP_MASKED_EQ"
    assert (condition["index"], condition["valueTwo"]) == (0, 0)
    assert condition["value"] & flag


def test_clone3_falls_back_to_clone() -> None:
    """ENOSYS is what the C library takes as "not there"; EPERM would make threads fail."""
    (rule,) = [rule for rule in PROFILE["syscalls"] if "clone3" in rule["names"]]
    assert (rule["action"], rule["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_limits_of_oneself_only() -> None:
    """The runner has the same uid."""
    assert ALLOWED["prlimit64"] == [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]


def test_no_call_is_listed_twice() -> None:
    """Except with other arguments: libseccomp takes the widest, and a reader the first."""
    names = [name for rule in PROFILE["syscalls"] if "args" not in rule for name in rule["names"]]
    assert len(names) == len(set(names))
    assert not {name for name, args in ALLOWED.items() if args} & set(names)


def test_it_is_passed_as_text() -> None:
    """A path would be opened by the engine's client, or by the engine on another machine."""
    options = SandboxConfig().container_spec("host/7")["HostConfig"]["SecurityOpt"]
    assert f"seccomp={SECCOMP_PROFILE}" in options
    assert "\n" not in SECCOMP_PROFILE
