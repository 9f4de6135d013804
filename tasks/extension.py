"""Say why an operator may not add a module or a name to the code policy.

Known doors only. Whatever else is added, strategies may use: read a module's source before adding it.
"""

import keyword
from collections.abc import Iterator

__all__ = ["parents", "refusal"]

# What runs code, starts processes or threads, opens files or connections, or reaches into the interpreter. Private
# modules need no entry. By the first component: scipy.signal is not signal.
_DOORS = frozenset(
    """aifc annotationlib antigravity argparse ast asynchat asyncio asyncore atexit bdb builtins bz2 cProfile
    celery cffi cgi cgitb cloudpickle cmd code codecs codeop compileall compression concurrent configparser
    copyreg cppyy ctypes ctypeslib curses cython dbm dill dis distutils docker doctest ensurepip f2py
    faulthandler fcntl filecmp fileinput fsspec ftplib gc genericpath getopt getpass gettext glob grp gzip http
    httpx idlelib imaplib imghdr imp importlib inspect io joblib jsonpickle lib2to3 linecache lzma mailbox
    mailcap marshal mimetypes mmap modulefinder msilib msvcrt multiprocessing netrc nis nntplib nt ntpath numba
    numexpr optparse os ossaudiodev pathlib pdb pickle pickletools pip pipes pkgutil platform plistlib poplib
    posix posixpath profile pstats pty pwd py_compile pyclbr pydoc readline redis requests resource rlcompleter
    runpy sched select selectors setuptools shelve shlex shutil signal site smtpd smtplib sndhdr socket
    socketserver spwd sqlite3 ssl stat subprocess sunau symtable sys sysconfig syslog tabnanny tarfile tasks
    telnetlib tempfile termios test testing threading timeit tkinter tokenize trace traceback tracemalloc tty
    turtle turtledemo types unittest urllib uu uuid venv wave weakref webbrowser winreg winsound worker wsgiref
    xmlrpc yaml zipapp zipfile zipimport""".split()
)

# The same within modules that are otherwise fine.
_INNER_DOORS = ("encodings", "logging.config", "logging.handlers", "numpy.core", "pandas.core", "pandas.io", "xml.sax")

# The other public modules of the standard library, of Python 3.11 to 3.14. Not `sys.stdlib_module_names`: producer,
# worker and sandbox may each have a Python of their own, and must decide alike.
_OTHER_MODULES = frozenset(
    """abc array audioop base64 binascii bisect calendar chunk cmath collections colorsys contextlib
    contextvars copy crypt csv dataclasses datetime decimal difflib email encodings enum errno fnmatch
    fractions functools graphlib hashlib heapq hmac html ipaddress itertools json keyword locale logging math
    nturl2path numbers opcode operator pprint pydoc_data pyexpat queue quopri random re reprlib secrets
    sre_compile sre_constants sre_parse statistics string stringprep struct textwrap this time token tomllib
    typing unicodedata warnings xdrlib xml zlib zoneinfo""".split()
)

# Functions and classes that evaluate text, reach attributes by name, make classes or wrap any function.
_DOOR_NAMES = frozenset(
    """BaseIndexer BufferingFormatter EnumDict EnumMeta EnumType FileHandler Flags Formatter ForwardRef GenericAlias
    attrgetter contextmanager evaluate_forward_ref get_annotations get_type_hints make_dataclass methodcaller new_class
    np numpy pandas pd property simple_enum singledispatch singledispatchmethod update_wrapper warn_explicit""".split()
)


def refusal(module: str, name: str | None, sinks: frozenset[str], sink_prefixes: tuple[str, ...]) -> str | None:
    """Return why ``module.name`` may not be added, as the rest of a sentence, or None where it may.

    ``name`` is None for the module itself; ``sinks`` are words that neither may contain.
    """
    *_, last = parts = module.split(".")
    if not all(map(_is_public, parts if name is None else [*parts, name])):
        return "is private, or no name at all"
    inner = any(f"{module}.".startswith(f"{door}.") for door in _INNER_DOORS)
    if parts[0] in _DOORS or inner or not sinks.isdisjoint(parts):
        return "leads out of the policy"
    if name is None:
        return None
    if name in _DOORS | _DOOR_NAMES | sinks or name.startswith(sink_prefixes):
        return "leads out of the policy"
    # pprint.pprint is a function; calendar.datetime is a module that calendar happens to import.
    if name in _OTHER_MODULES and name != last:
        return "is another module"
    return None


def parents(module: str) -> Iterator[str]:
    """Yield the packages that ``module`` is in: an import binds the first, and the policy must know it as a module."""
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def _is_public(name: str) -> bool:
    return name.isascii() and name.isidentifier() and not name.startswith("_") and not keyword.iskeyword(name)
