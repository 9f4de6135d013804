"""Strategies that leave something in their container, do harm to it, or look for what another has left there."""

from __future__ import annotations

#: `occurrences()`: how often each marker stands in all that can be read of this process' memory, and how much that is.
#: No marker is whole in a source that searches for it.
SEARCH = """
import numpy
FIRST = 'mark-5d41402a-'
SECONDS = {'code': 'bc4b2a76', 'data': 'b9719d91', 'output': '1017c592', 'page': '7c9d3a5e'}
CODES = ('utf-8', 'utf-16-le', 'utf-32-le')
def spans():
    # Of private memory without a file, what was never touched is skipped: it is empty, and an allocator's reserve.
    pages = os.open('/proc/self/pagemap', os.O_RDONLY)
    for line in open('/proc/self/maps').read().splitlines():
        area, mode, _, _, inode, *_ = line.split()
        start, end = (int(number, 16) for number in area.split('-'))
        if end > 1 << 63:  # the kernel's own
            continue
        if mode[3] == 's' or inode != '0':
            yield start, end
            continue
        touched = numpy.flatnonzero(numpy.frombuffer(os.pread(pages, end - start >> 9, start >> 9), 'u8') >> 62)
        for run in numpy.split(touched, numpy.flatnonzero(numpy.diff(touched) > 1) + 1):
            if run.size: yield start + int(run[0]) * 4096, start + int(run[-1] + 1) * 4096
    os.close(pages)
def occurrences():
    libc.prctl(4, 1, 0, 0, 0)  # opens /proc/self/mem
    memory = os.open('/proc/self/mem', os.O_RDONLY)
    found, read = dict.fromkeys(SECONDS, 0), 0
    sought = [(FIRST.encode(code), {text.encode(code): name for name, text in SECONDS.items()}) for code in CODES]
    for start, end in spans():
        while start < end:
            try:
                piece = os.pread(memory, min(1 << 20, end - start), start)
            except OSError:  # the kernel's own
                break
            read += len(piece)
            for first, seconds in sought:
                at = piece.find(first)
                while at >= 0:
                    at += len(first)
                    name = seconds.get(piece[at:at + len(next(iter(seconds)))])
                    if name: found[name] += 1
                    at = piece.find(first, at)
            start += len(piece) if start + len(piece) == end else len(piece) - 128
    os.close(memory)
    return found, read
"""
#: The same markers as a whole.
MARKS = {
    "code": "mark-5d41402a-bc4b2a76",
    "data": "mark-5d41402a-b9719d91",
    "output": "mark-5d41402a-1017c592",
    "page": "mark-5d41402a-7c9d3a5e",
}

#: Leaves its marks wherever a strategy can: it prints one so many times, and fills what it shares with its runner.
LEAVE = """
import mmap
left = json.load(open('/workspace/data.json'))
said = ((FIRST + SECONDS['output']) * TIMES).encode()
with open(1, 'wb', buffering=0, closefd=False) as stream: stream.write(said)
scribble, pages, frame = (FIRST + SECONDS['page']).encode() * 20_000, 0, sys._getframe()
while frame := frame.f_back:
    for value in frame.f_locals.values():
        if isinstance(value, mmap.mmap):
            value[:] = scribble[:len(value)]
            pages += 1
print(json.dumps([pages, *occurrences()]), file=sys.stderr)
"""

#: `look()`: all the state that the next strategy might share with this one, by name.
LOOK = """
import decimal, fcntl, gc, linecache, locale, random, resource, threading, warnings
import numpy, pandas
def look():
    def read(path):
        try:
            with open(path) as file: return file.read()
        except OSError as exc:
            return errno.errorcode[exc.errno]
    def status(pid, *names):
        lines = dict(line.split(':', 1) for line in read(f'/proc/{pid}/status').splitlines() if ':' in line)
        return [lines[name].strip() for name in names]
    def scheduling(pid):
        fields = read(f'/proc/{pid}/stat').rpartition(')')[2].split()
        return fields[16], fields[38], status(pid, 'Cpus_allowed', 'Mems_allowed')
    def limits():
        return {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if 'RLIMIT_' in name}
    descriptors = {fd: os.readlink(f'/proc/self/fd/{fd}').partition(':[')[0] for fd in os.listdir('/proc/self/fd')
                   if os.path.exists(f'/proc/self/fd/{fd}')}
    return {
        'modules': sorted(sys.modules), 'functions': [numpy.mean.__qualname__, pandas.Series.mean.__qualname__,
        sum.__qualname__, json.dumps.__qualname__], 'a small integer': eval('251') - 1,
        'environment': sorted(os.environ.items()), 'folder': os.getcwd(), 'umask': status('self', 'Umask'),
        'signals': status('self', 'SigBlk', 'SigIgn', 'SigCgt'),
        'timers': [signal.getitimer(which)[0] > 0 for which in (0, 1, 2)], 'alarm': signal.alarm(0) > 0,
        'limits': limits(), 'scheduling': scheduling('self'), 'first to be killed': read('/proc/self/oom_score_adj'),
        'locale': locale.setlocale(locale.LC_ALL), 'warnings': [str(one) for one in warnings.filters],
        'recursion': sys.getrecursionlimit(), 'digits': sys.get_int_max_str_digits(), 'decimal': [
        decimal.getcontext().prec, decimal.DefaultContext.prec], 'numpy': numpy.geterr(),
        'pandas': pandas.get_option('display.max_rows'), 'garbage': [gc.isenabled(), *gc.get_threshold()],
        'path': list(sys.path), 'finders': len(sys.meta_path), 'trace': repr(sys.gettrace()),
        'switches': sys.getswitchinterval(), 'sources': sorted(linecache.cache), 'name': read('/proc/self/comm'),
        'threads': [threading.active_count(), len(os.listdir('/proc/self/task'))], 'descriptors': descriptors,
        'processes': [name for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()],
        'System V': [read('/proc/sysvipc/' + kind) for kind in ('shm', 'sem', 'msg')],
        'terminals': sorted(os.listdir('/dev/pts')), 'files': sorted(os.listdir('/workspace') + os.listdir('/tmp')),
        'shared memory': [os.path.exists('/dev/shm'), refusal(os.listdir, '/dev/mqueue')],
        'locks': len(read('/proc/locks').splitlines()), 'dumpable': libc.prctl(3, 0, 0, 0, 0),
        'the runner': [read('/proc/1/limits'), read('/proc/1/oom_score_adj'), scheduling(1),
                       status(1, 'SigBlk', 'SigIgn', 'SigCgt', 'Threads', 'Uid', 'Seccomp')],
    }
"""

#: Changes each of them, where it is let.
VANDALISE = """
import builtins, mmap
before = look()
def attempt(function, *arguments):
    try:
        function(*arguments)
    except Exception:
        pass
numpy.mean = pandas.Series.mean = builtins.sum = json.dumps = len
sys.modules['planted'] = sys
os.environ['PLANTED'] = '1'
os.environ.pop('HOME')
os.chdir('/')
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF})
warnings.simplefilter('error')
sys.setrecursionlimit(5432)
sys.set_int_max_str_digits(0)
decimal.getcontext().prec = decimal.DefaultContext.prec = 3
numpy.seterr(all='raise')
pandas.set_option('display.max_rows', 3)
gc.disable()
gc.set_threshold(1)
sys.path.insert(0, '/proc')
sys.meta_path.pop()
sys.setswitchinterval(0.5)
linecache.cache['planted'] = (1, None, ['x'], 'planted')
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
held = [os.dup(3), os.memfd_create('planted'), *os.pipe(), os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)]
lock = open('/python', 'rb')
fcntl.lockf(lock, fcntl.LOCK_SH)
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
ctypes.c_uint32.from_address(id(251) + 24).value = 250
libc.prctl(15, b'planted', 0, 0, 0)
for attempted in (
    (os.umask, 0o777), (locale.setlocale, locale.LC_ALL, 'C.UTF-8'), (os.nice, 19),
    (os.setpriority, os.PRIO_PROCESS, 1, 19), (os.setpriority, os.PRIO_PROCESS, 0, 19),
    (os.sched_setaffinity, 1, {0}), (os.sched_setaffinity, 0, {0}), (os.sched_setscheduler, 0, 5, os.sched_param(0)),
    (resource.prlimit, 1, resource.RLIMIT_NOFILE, (4, 4)), (resource.prlimit, 1, resource.RLIMIT_CPU, (1, 1)),
    (open, '/proc/1/oom_score_adj', 'w'), (open, '/proc/1/comm', 'w'), (open, '/workspace/planted', 'w'),
    (open, '/tmp/planted', 'w'), (os.mkdir, '/dev/shm'), (os.open, '/dev/mqueue/planted', os.O_CREAT | os.O_RDWR),
    (libc.shmget, 7, 4096, 0o1666), (libc.semget, 7, 1, 0o1666), (libc.msgget, 7, 0o1666),
):
    attempt(*attempted)
sys.settrace(lambda *_: None)
libc.prctl(4, 1, 0, 0, 0)
with open('/proc/self/oom_score_adj', 'w') as file: file.write('900')
for name, value in (('NOFILE', 64), ('CPU', 50), ('STACK', 1 << 20), ('FSIZE', 1 << 20), ('NPROC', 500)):
    resource.setrlimit(getattr(resource, 'RLIMIT_' + name), (value, value))
for which in (0, 1, 2): signal.setitimer(which, 0.1, 0.1)
after = look()
signal.alarm(1)
os.write(2, json.JSONEncoder().encode([name for name in before if before[name] != after[name]]).encode())
os.write(1, json.JSONEncoder().encode(before).encode())
"""

#: What a strategy can change of all that, to show that `look()` sees it. The rest is only tried.
CHANGEABLE = set(
    """
    modules functions environment folder signals timers limits warnings recursion digits decimal numpy
    pandas garbage path finders trace switches sources name threads descriptors processes terminals locks dumpable
    """.split()
) | {"a small integer", "first to be killed"}

#: Leaves processes behind that do all they can to stay, then ends well.
STAY = """
    import threading
    SIGCHLD, CLONE_FS, CLONE_PARENT = 17, 0x200, 0x8000
    clone = {'x86_64': 56, 'aarch64': 220}[os.uname().machine]
    def stay(stop=False):
        os.setsid()
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            try: signal.signal(number, signal.SIG_IGN)
            except OSError: pass
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if stop: os.kill(os.getpid(), signal.SIGSTOP)
        while True: time.sleep(0.01)
    for stop in (False, False, True, True):
        if os.fork() == 0:
            if os.fork() == 0: stay(stop)  # of PID 1, once its parent is gone
            os._exit(0)
    for number in range(4):
        if os.fork() == 0:
            if number % 2: os._exit(0)  # a zombie
            stay()
    # A child of PID 1's at once; children that tell their end by another signal, or by none.
    for flags in (CLONE_PARENT | SIGCHLD, CLONE_FS | SIGCHLD, CLONE_FS | 10, 0, CLONE_PARENT):
        if libc.syscall(clone, flags, 0, 0, 0, 0) == 0: stay()
    # One that starts others as fast as it can.
    if os.fork() == 0:
        os.setsid()
        while True:
            try:
                if os.fork() == 0: os._exit(0)
                os.waitpid(-1, os.WNOHANG)
            except OSError: pass
    for _ in range(3): threading.Thread(target=time.sleep, args=(600,)).start()
    time.sleep(0.2)
    print(len([name for name in os.listdir('/proc') if name.isdigit()]))
    os._exit(0)
"""

#: Each does harm to what the next one needs, and ends well.
HARMS = {
    "signals to PID 1": """
        for number in set(range(1, 65)) - {32, 33}:
            for _ in range(50): os.kill(1, number)
    """,
    "ends of children by the thousand": """
        for _ in range(20_000): os.kill(1, signal.SIGCHLD)
        for _ in range(200):
            if os.fork() == 0: os._exit(0)
            os.wait()
    """,
    "signals by the kernel's hand": """
        import fcntl
        pairs = [os.pipe() for _ in range(4)]
        for fd, number in [(1, signal.SIGKILL), (2, signal.SIGSTOP), *zip((w for _, w in pairs), (9, 19, 15, 17))]:
            fcntl.fcntl(fd, fcntl.F_SETOWN, 1)
            fcntl.fcntl(fd, fcntl.F_SETSIG, number)
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
        for fd in (1, 2): os.write(fd, b'x' * 100_000)
        for r, w in pairs:
            os.write(w, b'x' * 60_000)
            os.read(r, 60_000)
    """,
    "full pipes": """
        import fcntl
        for fd in (1, 2):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)
            os.set_blocking(fd, False)
            os.write(fd, b'x' * 400_000)
        os._exit(0)
    """,
    "no descriptors": "os.closerange(0, 256)",
    "all descriptors": """
        try:
            while True: os.memfd_create('left')
        except OSError: pass
    """,
    "all processes": """
        try:
            while True:
                if os.fork() == 0: time.sleep(600)
        except OSError: pass
    """,
    "all threads": """
        import threading
        try:
            while True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        except RuntimeError: os._exit(0)
    """,
    "zombies": """
        for _ in range(25):
            if os.fork() == 0: os._exit(0)
    """,
    "much memory": """
        import mmap
        fd = os.memfd_create('left')
        for _ in range(60): os.write(fd, b'x' * (1 << 20))
        shared = mmap.mmap(-1, 40 << 20)
        for at in range(0, len(shared), 4096): shared[at] = 1
        if os.fork() == 0: time.sleep(600)
    """,
    "a scribble on all that is shared": """
        import mmap
        frame = sys._getframe()
        while frame := frame.f_back:
            for value in frame.f_locals.values():
                if isinstance(value, mmap.mmap):
                    value[:] = (b'{"type": 1}\\xff[' * len(value))[:len(value)]
                    libc.madvise(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(value))), len(value), 9)
        libc.prctl(4, 1, 0, 0, 0)
        cut = [refusal(os.open, f'/proc/self/map_files/{line.split()[0]}', os.O_RDWR | os.O_TRUNC)
               for line in open('/proc/self/maps') if '/dev/zero' in line]
        assert cut and 'done' not in cut, cut
        assert refusal(os.open, '/proc/self/fd/3', os.O_RDWR | os.O_TRUNC) != 'done'
    """,
    "a message that looks like the next run": """
        run = json.dumps({'timeout': 1, 'output_bytes': 1, 'data_bytes': 0, 'check': False, 'last': False}).encode()
        for kind, text in ((1, run), (2, b'{"seed": 1, "extra_modules": {}}\\nprint("forged")')):
            for fd in range(3):
                refusal(os.write, fd, bytes([kind]) + len(text).to_bytes(4, 'big') + text)
    """,
    "another program": """
        if os.fork() == 0: time.sleep(600)
        os.execv('/python', ['python', '-c', 'import os, signal; os.kill(1, 15); os._exit(0)'])
    """,
    "a broken heap": """
        ctypes.memset(id(json), 255, 64)
        os._exit(0)
    """,
}
