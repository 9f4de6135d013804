"""The code policy as data: what a strategy may contain, and how to rewrite what it may not.

Allow-lists throughout; the few deny-lists (``sinks``, ``introspection``) name methods, because a
static check cannot know their objects. Standard library only: the sandbox image uses this too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from tasks.exports import LIBRARY_EXPORTS
from tasks.extension import parents, refusal

__all__ = ["DEFAULT_POLICY", "Policy"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _modules(text: str) -> Mapping[str, frozenset[str]]:
    """Read one ``module: names`` entry per unindented line."""
    entries = (entry.partition(":") for entry in text.replace("\n  ", " ").splitlines())
    return MappingProxyType({module: _words(names) for module, _, names in entries})


@dataclass(frozen=True, slots=True)
class Policy:
    """Say what code may contain; ``dataclasses.replace`` makes a stricter or wider one.

    Sizes are in UTF-8 bytes, depth in levels of the syntax tree.
    """

    modules: Mapping[str, frozenset[str]]  #: importable module -> its allowed names
    nodes: frozenset[str]  #: names of AST node types, also of those newer than this Python
    builtins: frozenset[str]  #: may be loaded without being defined
    refused_builtins: frozenset[str]  #: may be neither loaded nor bound
    definable_dunders: frozenset[str]  #: methods a class may define, and reach through super()
    constant_dunders: frozenset[str]  #: plain names such as __version__
    text_dunders: frozenset[str]  #: may be spelled in a string
    readable_dunders: frozenset[str]  #: as an attribute of anything
    writable_dunders: frozenset[str]  #: as an attribute of anything, assignment only
    public_privates: frozenset[str]  #: the documented underscore names of namedtuple and Enum
    introspection: frozenset[str]  #: attributes that lead to frames, code or classes
    system_modules: frozenset[str]  #: never an attribute: libraries re-export them
    library_sinks: frozenset[str]  #: numpy/pandas functions that read, write or evaluate
    sinks: frozenset[str]  #: methods that do, on any object
    sink_prefixes: tuple[str, ...]  #: a method so named is a sink, unless honest or the strategy's
    honest_conversions: frozenset[str]
    text_exporters: frozenset[str]  #: honest while they get no path and return text
    option_calls: frozenset[str]
    option_prefixes: tuple[str, ...]  #: the pandas options that are only about display
    string_dispatch: frozenset[str]  #: methods that look a string up as a method name, also in lists and dicts
    flat_dispatch: frozenset[str]  #: methods to which a list or a dict is data
    positional_dispatch: Mapping[str, int]  #: library function -> which argument names functions
    writing_methods: frozenset[str]  #: methods of tables that no string may name where it could be looked up
    reductions: frozenset[str]  #: the strings they may be given
    hints: Mapping[str, str]  #: rule or refused thing -> how to rewrite it, one line
    data_directory: str = "/workspace/"
    open_modes: frozenset[str] = frozenset({"r", "rb", "rt"})
    max_code_bytes: int = 256 * 1024
    # Largest of 386 public strategy files: depth 22, 12,569 nodes. An elif costs one level.
    max_depth: int = 150
    max_nodes: int = 60_000
    max_violations: int = 100
    # The parser joins a dotted import name in quadratic time: 100,000 dots keep it busy for 28 s.
    max_import_dots: int = 100

    def hint(self, rule: str, *things: str) -> str:
        """Return the hint of the first of ``things`` that has its own, else the one of ``rule``."""
        found = (self.hints[thing] for thing in things if thing in self.hints)
        return next(found, self.hints[rule])

    def extended(self, modules: Mapping[str, Iterable[str]]) -> "Policy":
        """Return this policy with more modules, or with more names of a module it has.

        Raises:
            ValueError: an entry is a known way out of the policy; the text says which and why.
        """
        sinks = self.sinks | self.library_sinks | self.system_modules | self.introspection | self.refused_builtins
        wider = dict(self.modules)
        for module, names in modules.items():
            known = self.modules.get(module, frozenset())
            new = sorted({*names} - known)
            for name in new if module in self.modules else [None, *new]:
                if reason := refusal(module, name, sinks, self.sink_prefixes):
                    full_name = module if name is None else f"{module}.{name}"
                    msg = f"{full_name!a} {reason}"
                    raise ValueError(msg)
            wider |= {parent: frozenset() for parent in parents(module) if parent not in wider}
            wider[module] = known | frozenset(new)
        return replace(self, modules=MappingProxyType(wider))


# Each standard module's own export list, less what reads, writes, evaluates or reaches other modules.
_EXPORTS = """\
__future__: annotations
abc: ABC ABCMeta abstractmethod
bisect: bisect bisect_left bisect_right insort insort_left insort_right
collections: ChainMap Counter OrderedDict UserDict UserList UserString defaultdict deque namedtuple
collections.abc: Callable Collection Container Generator Hashable ItemsView Iterable Iterator
  KeysView Mapping MappingView MutableMapping MutableSequence MutableSet Reversible Sequence Set
  Sized ValuesView
contextlib: suppress
copy: Error copy deepcopy
dataclasses: FrozenInstanceError InitVar KW_ONLY asdict astuple dataclass field fields is_dataclass
  replace
datetime: MAXYEAR MINYEAR UTC date datetime time timedelta timezone tzinfo
decimal: Context Decimal DivisionByZero InvalidOperation Overflow ROUND_CEILING ROUND_DOWN
  ROUND_FLOOR ROUND_HALF_DOWN ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP getcontext localcontext
  setcontext
enum: Enum Flag IntEnum IntFlag StrEnum auto unique
fractions: Fraction
functools: cache cached_property cmp_to_key lru_cache partial partialmethod reduce total_ordering
  wraps
heapq: heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest
itertools: accumulate batched chain combinations combinations_with_replacement compress count cycle
  dropwhile filterfalse groupby islice pairwise permutations product repeat starmap takewhile tee
  zip_longest
json: JSONDecodeError JSONDecoder JSONEncoder dump dumps load loads
logging: CRITICAL DEBUG ERROR Formatter INFO Logger NOTSET NullHandler StreamHandler WARNING basicConfig
  critical debug disable error exception getLevelName getLogger info log warning
math: acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf
  erfc exp exp2 expm1 fabs factorial floor fma fmod frexp fsum gamma gcd hypot inf isclose isfinite
  isinf isnan isqrt lcm ldexp lgamma log log10 log1p log2 modf nan nextafter perm pi pow prod
  radians remainder sin sinh sqrt sumprod tan tanh tau trunc
numbers: Complex Integral Number Rational Real
operator: abs add and_ contains countOf delitem eq floordiv ge getitem gt indexOf is_ is_not
  itemgetter le lt matmul mod mul ne neg not_ or_ pos pow setitem sub truediv truth xor
random: Random betavariate choice choices expovariate gammavariate gauss getrandbits lognormvariate
  normalvariate paretovariate randbytes randint random randrange sample seed shuffle triangular
  uniform weibullvariate
re: ASCII DOTALL I IGNORECASE M MULTILINE Match Pattern S VERBOSE X compile error escape findall
  finditer fullmatch match search split sub subn
statistics: NormalDist StatisticsError correlation covariance fmean geometric_mean harmonic_mean kde
  kde_random linear_regression mean median median_grouped median_high median_low mode multimode
  pstdev pvariance quantiles stdev variance
string: ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits printable
  punctuation whitespace
time: gmtime localtime monotonic monotonic_ns perf_counter perf_counter_ns process_time
  process_time_ns sleep strftime strptime struct_time time time_ns
typing: AbstractSet Annotated Any Callable ChainMap ClassVar Collection Counter DefaultDict Deque
  Dict Final FrozenSet Generator Generic Hashable Iterable Iterator List Literal Mapping
  MutableMapping MutableSequence MutableSet NamedTuple NewType NoReturn NotRequired Optional
  OrderedDict ParamSpec Protocol ReadOnly Required Reversible Self Sequence Set Sized SupportsFloat
  SupportsInt TYPE_CHECKING Tuple Type TypeAlias TypeGuard TypeIs TypeVar TypedDict Union cast final
  get_args overload override runtime_checkable
warnings: catch_warnings filterwarnings resetwarnings simplefilter warn
zoneinfo: ZoneInfo ZoneInfoNotFoundError available_timezones
"""

_NODES = _words("""
Module FunctionDef ClassDef Return Delete Assign AugAssign AnnAssign For While If With Match Raise Try TryStar
Assert Import ImportFrom Global Nonlocal Expr Pass Break Continue TypeAlias TypeVar ParamSpec TypeVarTuple BoolOp
NamedExpr BinOp UnaryOp Lambda IfExp Dict Set ListComp SetComp DictComp GeneratorExp Yield YieldFrom Compare Call
FormattedValue JoinedStr Constant Attribute Subscript Starred Name List Tuple Slice comprehension ExceptHandler
arguments arg keyword alias withitem match_case MatchValue MatchSingleton MatchSequence MatchMapping MatchClass
MatchStar MatchAs MatchOr And Or Add Sub Mult MatMult Div Mod Pow LShift RShift BitOr BitXor BitAnd FloorDiv Invert
Not UAdd USub Eq NotEq Lt LtE Gt GtE Is IsNot In NotIn""")

# type and open are here for their honest calls only; the validator looks at each use.
_BUILTINS = _words("""
abs all any ascii bin bool bytearray bytes callable chr classmethod complex dict divmod enumerate filter float
format frozenset hasattr hash hex id int isinstance issubclass iter len list map max min next object oct open ord
pow print property range repr reversed round set slice sorted staticmethod str sum super tuple type zip Ellipsis
NotImplemented ArithmeticError AssertionError AttributeError BaseException DeprecationWarning EOFError Exception
ExceptionGroup FileNotFoundError FloatingPointError FutureWarning IOError IndexError KeyError KeyboardInterrupt
LookupError MemoryError NameError NotImplementedError OSError OverflowError PendingDeprecationWarning
PermissionError RecursionError ReferenceError RuntimeError RuntimeWarning StopIteration SyntaxError SystemExit
TimeoutError TypeError UnboundLocalError UnicodeError UserWarning ValueError Warning ZeroDivisionError __name__""")

_DEFINABLE = frozenset(
    f"__{name}__"
    for name in _words("""
abs add and bool call contains delitem divmod enter eq exit float floordiv format ge getitem gt hash iadd imul index
init init_subclass int invert isub iter itruediv le len lt matmul missing mod mul ne neg new next or pos post_init
pow radd repr reversed rfloordiv rmod rmul round rpow rsub rtruediv setitem str sub truediv xor""")
)

_INTROSPECTION = _words("""
f_back f_builtins f_code f_globals f_lasti f_lineno f_locals f_trace f_trace_lines f_trace_opcodes co_code co_consts
co_filename co_names co_varnames gi_code gi_frame gi_yieldfrom cr_await cr_code cr_frame cr_origin ag_await ag_code
ag_frame tb_frame tb_lasti tb_lineno tb_next with_traceback cell_contents func_closure func_code func_globals mro
obj get_field vformat attrname capsule""")

_DATA_FILE = "the data is read with json.load(open('/workspace/data.json'))"
_NO_FILES = f"nothing can be read or written here: {_DATA_FILE}, results are printed"
_NO_NETWORK = f"there is no network: {_DATA_FILE}"
_NO_DISPLAY = "there is no display: print the numbers instead"
_HINTS = {
    "R0": "send plain Python 3 source as UTF-8, shorter and less nested",
    "R1": "use plain statements and expressions: no async, no await",
    "R2": "import only numpy, pandas and small pure modules such as math, statistics or datetime",
    "R3": "leave double underscores out; super().__init__() and type(x).__name__ are fine",
    "R4": "use a public attribute, or add a property: other.price, not other._price; names like _x belong to self",
    "R5": "drop it: a strategy needs no frames, code objects or class internals",
    "R6": "use a plain builtin, or define the name before you use it",
    "R7": "write module.function(...) with a documented function; never pass or rebind the module",
    "R8": _NO_FILES,
    "R9": "pass a function, such as np.mean or a lambda, or a reduction such as 'mean' or 'last'",
    "R10": "write an f-string, such as f'{price:.2f}', and no double-underscore names in text",
    "R11": "read the data with open('/workspace/data.json')",
    "coding comment": "delete the coding comment: source is always UTF-8",
    "async": "write an ordinary def, for or with: there is nothing to wait for",
    "open variable": "bind it first in the same block, or call it open_price: here it may be the builtin",
    "eval": "write the calculation out as plain Python",
    "exec": "write the statements out as plain Python",
    "compile": "write the code out as plain Python; a pattern is made with re.compile(...)",
    "__import__": "use an import statement with an allowed module",
    "getattr": "write obj.name, or keep the values in a dict and look them up",
    "setattr": "write obj.name = value, or keep the values in a dict",
    "rebound self": "call the variable something else than self or cls",
    "rebound": "give the variable another name than the imported module",
    "set_option": "write the full name, as in pd.set_option('display.width', 120)",
    "to_csv": "leave the path out: print(df.to_csv())",
    "syntax error": "correct the syntax: strategies are Python 3.11 or later",
    "limit": "repair the violations above first, then validate again",
    "vars": "keep the values in a dict, or use dataclasses.asdict(obj)",
    "input": "there is nobody to ask: use constants or /workspace/data.json",
    "type": "write isinstance(x, C), type(x) is C, type(x).__name__, handlers.get(type(x)), C(1), type(self)(price=1)",
    "property": "write @property without an import: the builtin serves enumerations too",
    "contextmanager": "write a class with __enter__ and __exit__, or plain try and finally",
    "attrgetter": "write a lambda, such as lambda trade: trade.price; itemgetter is fine for keys and positions",
    "ABCMeta": "write class Base(ABC): or class Base(metaclass=ABCMeta):",
    "TypedDict": "write class Bar(TypedDict): with one line per key, such as close: float",
    "ndarray": "make arrays with np.zeros, np.empty or np.array; as a type write np.ndarray in annotations",
    "resize": "write arr.resize(n), or np.resize(arr, n), without refcheck",
    "field name": "set self.name in __init__, use series.rename(...), or call the attribute label",
    "wraps": "write @wraps(fn) with one argument, or leave it out",
    "query": "use a boolean mask: df[df['close'] > 10]",
    "as_strided": "use np.lib.stride_tricks.sliding_window_view or .rolling(n)",
    "__class__": "write type(x).__name__, or isinstance(x, C)",
    "__dict__": "use dataclasses.asdict(obj) or an explicit dict",
}
_SHARED_HINTS = {
    "Enum Flag IntEnum IntFlag StrEnum": "write class Side(Enum): with members BUY = 1, and use that class",
    "attrname capsule": "drop it: use @cached_property and np.random.default_rng(seed) as they are",
    "singledispatch singledispatchmethod": "use isinstance and if, or a dict of functions: handlers.get(type(x))",
    "BaseIndexer FixedForwardWindowIndexer": "write FixedForwardWindowIndexer(window_size=3), or .rolling(n)",
    "exit quit": "let the script end, or raise SystemExit",
    "globals locals": "pass values as arguments or keep them in a dict",
    "plot plotting": _NO_DISPLAY,
}
_HINTS |= {name: hint for names, hint in _SHARED_HINTS.items() for name in _words(names)}
_IMPORT_HINTS = {
    "requests urllib http httpx socket aiohttp websocket yfinance ccxt": _NO_NETWORK,
    "os pathlib io glob shutil csv sqlite3": _NO_FILES,
    "sys": "leave it out: print the result; stop with raise SystemExit",
    "traceback": "let the exception rise: its traceback is reported; or print(exc)",
    "pickle": "use json.dumps and json.loads",
    "matplotlib seaborn plotly mplfinance": _NO_DISPLAY,
    "talib ta pandas_ta": "write the indicator with pandas: rolling, ewm, diff",
    "scipy sklearn statsmodels": "use numpy (np.polyfit, np.linalg) or statistics.NormalDist",
    "asyncio threading multiprocessing concurrent": "write plain sequential code",
    "subprocess ctypes importlib builtins inspect gc": "drop it: a strategy only computes",
}
_HINTS |= {f"import {name}": hint for names, hint in _IMPORT_HINTS.items() for name in _words(names)}

#: What the workers enforce unless an operator narrows it.
DEFAULT_POLICY = Policy(
    modules=_modules(_EXPORTS + LIBRARY_EXPORTS),
    nodes=_NODES,
    builtins=_BUILTINS,
    refused_builtins=_words("""eval exec compile getattr setattr delattr globals locals vars dir
        __import__ __build_class__ breakpoint input help memoryview"""),
    definable_dunders=_DEFINABLE,
    constant_dunders=_words("__all__ __author__ __doc__ __license__ __slots__ __version__"),
    text_dunders=_words("__main__"),
    readable_dunders=_words("__doc__ __name__ __version__"),
    writable_dunders=_words("__doc__ __name__"),
    public_privates=_words("_asdict _fields _make _name_ _replace _value_"),
    introspection=_INTROSPECTION,
    system_modules=_words("""_pickle builtins cffi codecs ctypes importlib inspect io linecache marshal
        multiprocessing os pathlib pickle pkgutil posix runpy shutil socket subprocess sys tempfile"""),
    library_sinks=_words("""DataSource ExcelFile ExcelWriter HDFStore as_strided ctypeslib eval f2py from_dlpack
        fromfile fromregex genfromtxt load loadtxt memmap plotting save savetxt savez savez_compressed show_config
        show_versions test testing"""),
    sinks=_words("""as_strided ctypeslib dump dumps eval f2py fromfile fromregex genfromtxt loadtxt memmap plot
        plotting query savetxt savez savez_compressed to_clipboard to_excel to_feather to_gbq to_hdf to_html
        to_iceberg to_latex to_markdown to_orc to_parquet to_pickle to_sql to_stata to_xarray to_xml tofile"""),
    sink_prefixes=("read_", "to_"),
    honest_conversions=_words("""to_bytes to_datetime to_datetime64 to_dict to_eng_string to_flat_index to_frame
        to_integral_exact to_integral_value to_julian_date to_list to_numeric to_numpy to_offset to_period
        to_pydatetime to_pytimedelta to_records to_series to_timedelta to_timedelta64 to_timestamp to_tuples"""),
    text_exporters=_words("to_csv to_json to_string"),
    option_calls=_words("option_context reset_option set_option"),
    option_prefixes=("display.", "mode."),
    string_dispatch=_words("agg aggregate apply transform"),
    flat_dispatch=_words("map pipe"),
    positional_dispatch=MappingProxyType({"NamedAgg": 1, "crosstab": 5, "pivot_table": 4}),
    writing_methods=_words("""eval plot query to_clipboard to_csv to_excel to_feather to_gbq to_hdf to_html
        to_iceberg to_json to_latex to_markdown to_orc to_parquet to_pickle to_sql to_stata to_string to_xarray
        to_xml"""),
    reductions=_words("""all any bfill count cummax cummin cumprod cumsum diff ffill first idxmax idxmin kurt last
        mad max mean median min nunique ohlc pct_change prod quantile rank sem shift size skew std sum var abs sqrt
        log exp"""),
    hints=MappingProxyType(_HINTS),
)
