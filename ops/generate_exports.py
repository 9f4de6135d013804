"""Writes `tasks/exports.py`: what strategies may use of numpy and pandas, read off the pinned versions in the image.

All public names of the modules below, less modules and metaclasses (which make classes of any content, as `type`
does), less the policy's sinks, less the names denied here, each for a reason.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from tasks import ExecutionRequest
from tasks.checks.guards import is_sink
from tasks.policy import DEFAULT_POLICY
from worker import CodeExecutor

__all__ = ["TARGET", "generate"]

TARGET = Path(__file__).resolve().parent.parent / "tasks" / "exports.py"

# numpy.ma, numpy.char, numpy.strings and pandas.api.extensions are left to the operator who needs them.
MODULES = """numpy numpy.exceptions numpy.fft numpy.lib numpy.lib.stride_tricks numpy.linalg numpy.polynomial
    numpy.polynomial.polynomial numpy.random numpy.typing pandas pandas.api pandas.api.indexers pandas.api.types
    pandas.errors pandas.offsets pandas.tseries pandas.tseries.frequencies pandas.tseries.holiday
    pandas.tseries.offsets""".split()

#: Of these modules only this: the rest is their own business, or a path to others.
ONLY = {
    "numpy.lib": "",
    "numpy.lib.stride_tricks": "sliding_window_view",
    "pandas.api": "",
    "pandas.tseries": "",
    "pandas.tseries.frequencies": "infer_freq to_offset",
}

# matrix and asmatrix stay: the text they take is read as literals (ast.literal_eval), which reaches nothing.
DENIED = frozenset(
    # evaluates names it finds in the caller's frame; imports what it is asked about; calls a function by its name
    "bmat info NamedFunc "
    # lay an array over a buffer, with objects in it if so told: memory of the process, read and written as numbers
    "recarray record void "
    # swap or build the native state of random generators: a state is trusted, and so are its function pointers
    "BitGenerator MT19937 Philox get_bit_generator set_bit_generator set_state "
    # set attributes by names that are made when the code runs
    "BaseIndexer Flags "
    # makes a class of the parts it is given
    "HolidayCalendarFactory "
    # tell of the host: paths, processor, libraries
    "get_include show_runtime "
    # what these modules themselves imported
    "Literal TYPE_CHECKING annotations overload".split()
)

# Gone from numpy 2, and still named in code for either version: try np.trapezoid, except AttributeError np.trapz.
# Code that knows only the old name learns the new one from numpy's own message.
GONE = {"numpy": {"in1d", "trapz"}}

READ_NAMES = """
import importlib, json, sys, types, warnings
warnings.simplefilter('ignore')

def find(path):
    try:
        return importlib.import_module(path)
    except ImportError:  # pandas.offsets is another module's name in pandas, but no path to import
        parent, _, name = path.rpartition('.')
        return getattr(importlib.import_module(parent), name)

def names(module):
    for name in dir(module):
        try:
            value = getattr(module, name)
        except ImportError:  # loaded when first asked for, and not in the image
            continue
        if not name.startswith('_') and not isinstance(value, types.ModuleType):
            if not (isinstance(value, type) and issubclass(value, type)):
                yield name

paths = json.load(open('/workspace/data.json'))
versions = {name: importlib.import_module(name).__version__ for name in ('numpy', 'pandas')}
versions['python'] = '%d.%d' % sys.version_info[:2]
print(json.dumps([versions, {path: list(names(find(path))) for path in paths}]))
"""

TEMPLATE = '''\
"""What strategies may use of numpy {numpy} and pandas {pandas}. Written by `make exports`: edit its script instead."""

__all__ = ["LIBRARIES", "LIBRARY_EXPORTS"]

#: What runs strategies.
LIBRARIES = "Python {python}, numpy {numpy}, pandas {pandas}"
#: In the form of the lists in `tasks.policy`.
LIBRARY_EXPORTS = """\\
{lists}
"""
'''


def generate(executor: CodeExecutor) -> str:
    """Return the text of `tasks/exports.py`, from the libraries in the image; the executor has its policy off."""
    result = executor.execute(ExecutionRequest.build(READ_NAMES, list(MODULES)))
    versions, public = result.json()
    lists = [_entry(module, _allowed(module, set(names))) for module, names in public.items()]
    return TEMPLATE.format(lists="\n".join(lists), **versions)


def _allowed(module: str, names: set[str]) -> set[str]:
    sinks = DEFAULT_POLICY.library_sinks | DEFAULT_POLICY.sinks
    refused = DENIED | DEFAULT_POLICY.system_modules | DEFAULT_POLICY.introspection
    honest = {name for name in names - refused if not is_sink(DEFAULT_POLICY, name, sinks)}
    only = honest & set(ONLY[module].split()) if module in ONLY else honest
    return only | GONE.get(module, set())


def _entry(module: str, names: set[str]) -> str:
    words = " ".join(sorted(names))
    return textwrap.fill(
        f"{module}: {words}", 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    with CodeExecutor(validator=None, warm=0) as bare:
        TARGET.write_text(generate(bare))
