"""System calls: what a strategy has no use for is refused, by number, with an error."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from tasks import ExecutionStatus

if TYPE_CHECKING:
    from tests.security.arena import Arena

MACHINE = platform.machine()

#: Number on x86_64, number on aarch64 ("-": it has none), name.
CALLS = """
    41 198 socket        53 199 socketpair    42 203 connect       49 200 bind          50 201 listen
    43 202 accept        288 242 accept4      44 206 sendto        45 207 recvfrom      46 211 sendmsg
    47 212 recvmsg       307 269 sendmmsg     299 243 recvmmsg     54 208 setsockopt    55 209 getsockopt
    425 425 io_uring_setup      426 426 io_uring_enter       427 427 io_uring_register
    101 117 ptrace       310 270 process_vm_readv     311 271 process_vm_writev    312 272 kcmp
    275 76 splice        276 77 tee           278 75 vmsplice      40 71 sendfile       326 285 copy_file_range
    29 194 shmget        30 196 shmat         31 195 shmctl        67 197 shmdt
    64 190 semget        65 193 semop         66 191 semctl        220 192 semtimedop
    68 186 msgget        69 189 msgsnd        70 188 msgrcv        71 187 msgctl
    240 180 mq_open      241 181 mq_unlink    242 182 mq_timedsend 243 183 mq_timedreceive
    244 184 mq_notify    245 185 mq_getsetattr
    424 424 pidfd_send_signal   434 434 pidfd_open    438 438 pidfd_getfd
    303 264 name_to_handle_at   304 265 open_by_handle_at
    133 - mknod          259 33 mknodat       86 - link            265 37 linkat        88 - symlink
    266 36 symlinkat     83 - mkdir           258 34 mkdirat       87 - unlink          263 35 unlinkat
    82 - rename          316 276 renameat2    76 45 truncate       77 46 ftruncate      285 47 fallocate
    188 5 setxattr       189 6 lsetxattr      190 7 fsetxattr      197 14 removexattr
    90 - chmod           91 52 fchmod         268 53 fchmodat      92 - chown           93 55 fchown
    94 - lchown          260 54 fchownat      280 88 utimensat
    250 219 keyctl       248 217 add_key      249 218 request_key  321 280 bpf          298 241 perf_event_open
    323 282 userfaultfd  300 262 fanotify_init
    272 97 unshare       308 268 setns        165 40 mount         166 39 umount2       155 41 pivot_root
    161 51 chroot        428 428 open_tree    429 429 move_mount   430 430 fsopen       431 431 fsconfig
    432 432 fsmount      433 433 fspick
    105 146 setuid       106 144 setgid       116 159 setgroups    117 147 setresuid    126 91 capset
    135 92 personality   154 - modify_ldt     172 - iopl           173 - ioperm
    175 105 init_module  313 273 finit_module 176 106 delete_module 246 104 kexec_load  320 294 kexec_file_load
    169 142 reboot       167 224 swapon       168 225 swapoff      163 89 acct          179 60 quotactl
    103 116 syslog       164 170 settimeofday 227 112 clock_settime 305 266 clock_adjtime 159 171 adjtimex
    170 161 sethostname  171 162 setdomainname 153 58 vhangup
    237 235 mbind        256 238 migrate_pages 279 239 move_pages  129 138 rt_sigqueueinfo
"""

SOCKETS = """
    answers = set()
    for family in range(46):
        for kind in (1, 2, 3, 5):
            answers.add(answer(libc.socket, family, kind, 0))
            answers.add(answer(libc.socketpair, family, kind, 0, (ctypes.c_int * 2)()))
    print(json.dumps(sorted(answers)))
"""

#: What matters of a network where sockets exist: nobody is there.
UNREACHABLE = """
    import socket
    def attempt(family, address):
        try:
            with socket.socket(family) as opened:
                opened.settimeout(2)
                opened.connect(address)
                return 'done'
        except OSError as exc:
            return 'refused'
    print(json.dumps([attempt(socket.AF_INET, ('169.254.169.254', 80)), attempt(socket.AF_INET, ('10.0.0.1', 80)),
                      attempt(socket.AF_INET6, ('fd00::1', 80)), attempt(socket.AF_UNIX, '/var/run/docker.sock'),
                      attempt(socket.AF_UNIX, '\\0abstract'), attempt(40, (2, 1024))]))
"""

NAMESPACES = """
    flags = {'time': 0x80, 'mount': 0x20000, 'cgroup': 0x2000000, 'uts': 0x4000000, 'ipc': 0x8000000,
             'user': 0x10000000, 'pid': 0x20000000, 'net': 0x40000000, 'user and net': 0x50000000}
    clone = {'x86_64': 56, 'aarch64': 220}[os.uname().machine]
    unshare = {'x86_64': 272, 'aarch64': 97}[os.uname().machine]
    def cloned(flag):
        parent = os.getpid()
        answered = syscall(clone, flag | signal.SIGCHLD, 0, 0, 0, 0)
        if os.getpid() != parent: os._exit(0)
        return answered
    # Of the flags, CLONE_NEWTIME exists for unshare alone: for clone the bits are the signal's.
    answers = {f'clone {name}': cloned(flag) for name, flag in flags.items() if name != 'time'}
    answers |= {f'unshare {name}': syscall(unshare, flag) for name, flag in flags.items()}
    answers['clone pidfd'] = cloned(0x1000)
    print(json.dumps([answers, syscall(435, 0, 0)]))
"""

#: 1 is PR_SET_PDEATHSIG, 22 PR_SET_SECCOMP, 36 PR_SET_CHILD_SUBREAPER, 35 PR_SET_MM, 47 PR_CAP_AMBIENT,
#: 0x59616d61 PR_SET_PTRACER, 38 PR_SET_NO_NEW_PRIVS, 28 PR_SET_SECUREBITS; 0x5412 is TIOCSTI, 0x541D TIOCCONS,
#: 0x8933 SIOCGIFINDEX, 0x5423 TIOCSETD.
FILTERED = """
    terminal = ctypes.create_string_buffer(64)
    prctl = {str(option): answer(libc.prctl, option, 0, 0, 0, 0) for option in (1, 22, 28, 35, 36, 38, 47, 0x59616d61)}
    orders = (0x5412, 0x541D, 0x8933, 0x5423)
    ioctl = {hex(order): answer(libc.ioctl, 1, ctypes.c_ulong(order), terminal) for order in orders}
    print(json.dumps([prctl, ioctl]))
"""

#: MAP_HUGETLB and MFD_HUGETLB, of whatever size the host may have reserved.
HUGE_PAGES = """
    import mmap
    shared, private, size = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 1 << 21
    answers = {}
    for bits in (0, 16, 21, 30):
        for kind in (shared, private):
            answers[f'mmap {bits} {kind}'] = refusal(lambda: mmap.mmap(-1, size, flags=kind | 0x40000 | bits << 26))
        answers[f'memfd_create {bits}'] = refusal(os.memfd_create, 'huge', 4 | bits << 26)
    print(json.dumps(answers))
"""

#: Machine code that asks for getpid() through the door of 32-bit programs, and the x32 number of it.
FOREIGN = """
    import mmap
    def child(function):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if function() == os.getpid() else 3)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    def int80():
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(bytes.fromhex('b814000000' 'cd80' 'c3'))
        return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    def x32():
        return libc.syscall(ctypes.c_long(0x40000000 | 39))
    def native():
        return libc.syscall(ctypes.c_long(39))
    print(json.dumps([child(native), child(int80), child(x32)]))
"""


def numbers() -> dict[str, int]:
    """Return this machine's numbers of `CALLS`."""
    words = CALLS.split()
    column = {"x86_64": 0, "aarch64": 1}[MACHINE]
    rows = zip(words[0::3], words[1::3], words[2::3], strict=True)
    return {row[2]: int(row[column]) for row in rows if row[column] != "-"}


known_machine = pytest.mark.skipif(MACHINE not in {"x86_64", "aarch64"}, reason="system call numbers of this machine")


@pytest.mark.threat(
    "the network, the metadata service, the host of a virtual machine (`AF_VSOCK`), netlink, `AF_ALG`",
    control="seccomp: no socket of any family",
    differs="sockets exist in gVisor's own stack, which has only `lo`",
)
def test_no_socket_of_any_family(arena: Arena) -> None:
    """Neither `socket` nor `socketpair`, for any of 46 families and four kinds."""
    if not arena.gvisor:
        assert arena.probe(SOCKETS) == ["EPERM"]
    assert set(arena.probe(UNREACHABLE)) == {"refused"}


@pytest.mark.threat(
    "kernel interfaces of no use to a strategy: io_uring, ptrace, splice, SysV IPC, message queues, process_vm, pidfd, "
    "file handles, keys, bpf, perf, userfaultfd, mounts, modules",
    control="seccomp: a list of what is allowed, EPERM for the rest",
    differs="answered by gVisor's kernel, never by the host's",
)
@known_machine
def test_system_calls_are_refused(arena: Arena) -> None:
    """Each by its number, so that no library stands in between."""
    code = f"""
        numbers = {numbers()!r}
        print('begun')
        print(json.dumps({{name: syscall(number, -1, 0, 0, 0, 0, 0) for name, number in numbers.items()}}))
    """
    result = arena.attack(code)
    assert result.output.startswith("begun\n")
    if arena.gvisor:
        assert result.status in {ExecutionStatus.SUCCEEDED, ExecutionStatus.CRASHED}
        return
    assert result.success, (result.error, result.stderr)
    answers = result.json()
    assert len(answers) == len(numbers()) > 100
    assert {name: answer for name, answer in answers.items() if answer != "EPERM"} == {}


@pytest.mark.threat(
    "namespaces of its own, and the kernel code behind them",
    control="seccomp: `clone` without CLONE_NEW*, no `unshare`, no `clone3`",
    differs="namespaces are gVisor's own, never the host's",
)
@known_machine
def test_no_new_namespace(arena: Arena) -> None:
    """No kind of namespace by either call; `clone3`, whose flags a filter cannot see, does not exist."""
    answers, clone3 = arena.probe(NAMESPACES)
    if not arena.gvisor:
        assert set(answers.values()) == {"EPERM"}, answers
        assert clone3 == "ENOSYS"


@pytest.mark.threat(
    "`prctl` and `ioctl` as doors to other things",
    control="seccomp: by argument",
    differs="answered by gVisor's kernel",
)
def test_prctl_and_ioctl_are_filtered(arena: Arena) -> None:
    """Options that change what the process is, and requests to terminals and interfaces, are refused."""
    prctl, ioctl = arena.probe(FILTERED)
    if not arena.gvisor:
        assert set(prctl.values()) == {"EPERM"}, prctl
        assert set(ioctl.values()) == {"EPERM"}, ioctl


@pytest.mark.threat(
    "the host's reserved huge pages, which no memory limit counts",
    control="seccomp: `mmap` and `memfd_create` by argument",
    differs="answered by gVisor's kernel",
)
def test_no_huge_page_is_taken(arena: Arena) -> None:
    """Neither mapped nor as a file, whatever their size."""
    answers = arena.probe(HUGE_PAGES)
    if not arena.gvisor:
        assert set(answers.values()) == {"EPERM"}, answers


@pytest.mark.threat(
    "system calls by the 32-bit and x32 doors, where numbers mean something else",
    control="seccomp: this machine's own ABI only",
    differs="gVisor has only its own",
)
@pytest.mark.skipif(MACHINE != "x86_64", reason="doors of x86_64")
def test_no_foreign_abi(arena: Arena) -> None:
    """`getpid` by its own number works; by `int 0x80` and by the x32 number it gives nothing or kills."""
    native, int80, x32 = arena.probe(FOREIGN)
    assert native == 0
    assert int80 != 0
    assert x32 != 0
