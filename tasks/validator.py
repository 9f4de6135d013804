"""Check a strategy's source against the code policy, without ever running any of it.

Reads the source, flattens its syntax tree once, then looks at each node once. Every violation is
reported, so that an agent repairs its code in one round. Standard library only: the sandbox image
uses this module too.
"""

import ast
import posixpath
import re
import string
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tasks.policy import DEFAULT_POLICY, Policy

__all__ = ["ASTValidator", "ValidationReport", "Violation"]

_COOKIE = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*[-\w.]+")
_UNREADABLE = re.compile("[\0\r\ud800-\udfff]")
# The rest of a logical line that may be a dotted import name, whatever its letters are.
_IMPORT_RUN = re.compile(r"\b(?:import|from)\b(?:\\\n|[^\n\\\"'()\[\]{}=:;#])*")
_WORD = re.compile(r"\w+")
_TEXT_LENGTH = 80
_SELF = frozenset({"self", "cls"})
_FORMAT = frozenset({"format", "format_map"})
_NONE: frozenset[str] = frozenset()
_NAMED_AGGREGATION = frozenset({"agg", "aggregate"})
_FLAT_DISPATCH = frozenset({"map", "pipe"})  # a list or dict there is data
_OPTION_NAME = re.compile(r"[a-z_.]+").fullmatch
_MODULE_DEPTH = 4  # longer chains of attributes are never modules
_OPEN_POSITIONAL = 2
_UNKNOWN = "\0"  # stands for a part of a string that only exists when the code runs

# Per node type the fields that hold identifiers the node binds. Name and alias are special.
_BINDERS: dict[str, tuple[str, ...]] = {
    "FunctionDef": ("name",),
    "ClassDef": ("name",),
    "arg": ("arg",),
    "ExceptHandler": ("name",),
    "MatchAs": ("name",),
    "MatchStar": ("name",),
    "MatchMapping": ("rest",),
    "Global": ("names",),
    "Nonlocal": ("names",),
    "TypeVar": ("name",),
    "ParamSpec": ("name",),
    "TypeVarTuple": ("name",),
}

_BINDING_KINDS = frozenset({*_BINDERS, "Name", "Attribute", "Import", "ImportFrom"})

# Fields that hold a string, a number or a context, in every node type that has them.
_LEAF_FIELDS = frozenset({"id", "ctx", "attr", "arg", "asname", "kind", "level", "type_comment"})

# catch_warnings swaps process-wide state, which two threads must not do at once.
_PARSE_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Violation:
    """Tell what the policy refuses, where, and how to write it instead.

    ``line`` and ``column`` are 1-based and count characters; for an attribute they point at its
    name. ``text`` is what stands there: printable, at most 80 characters.
    """

    rule: str
    line: int
    column: int
    text: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Hold all violations, ordered by position; true when there are none."""

    violations: tuple[Violation, ...] = ()

    def __bool__(self) -> bool:
        """Return whether the code is clean."""
        return not self.violations


class _Finding(NamedTuple):
    """A violation before its text is cut: most of them may be over the limit."""

    line: int
    column: int
    rule: str
    stop: int | None
    message: str
    things: tuple[str, ...]  # what to look a hint up by, best first


class ASTValidator:
    """Apply one policy to any number of sources; safe to share between threads."""

    def __init__(self, policy: Policy = DEFAULT_POLICY) -> None:
        """Keep ``policy``, which is immutable."""
        self._policy = policy

    def validate(self, code: str) -> ValidationReport:
        """Return every violation in ``code``; never raises and never executes anything."""
        check = _Check(self._policy, code)
        check.run()
        return check.report()


class _Guard(NamedTuple):
    """A function that may be called in one way and never be a value."""

    rule: str
    message: str
    is_honest: Callable[[Policy, ast.Call], bool]


def _is_data_path(policy: Policy, path: object) -> bool:
    return (
        isinstance(path, str)
        and path.startswith(policy.data_directory)
        and posixpath.normpath(path) == path
        and path.isprintable()
    )


def _opens_data(policy: Policy, call: ast.Call) -> bool:
    values = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    options = {option.arg: option.value for option in call.keywords}
    if len(values) != len(call.args) or not values or len(values) > _OPEN_POSITIONAL:
        return False
    mode = options.pop("mode", None) if len(values) == 1 else ast.Constant(values[1])
    literal = mode is None or (isinstance(mode, ast.Constant) and mode.value in policy.open_modes)
    known = options.keys() <= {"encoding", "errors", "newline"}
    return _is_data_path(policy, values[0]) and literal and known


def _takes_one_argument(_: Policy, call: ast.Call) -> bool:
    return len(call.args) == 1 and not isinstance(call.args[0], ast.Starred) and not call.keywords


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _returns_text(_: Policy, call: ast.Call) -> bool:
    options = {option.arg: option.value for option in call.keywords}
    paths = [options[name] for name in ("path_or_buf", "buf", None) if name in options]
    return len(call.args) <= 1 and all(map(_is_none, [*call.args, *paths]))


def _sets_display(policy: Policy, call: ast.Call) -> bool:
    names = [arg.value if isinstance(arg, ast.Constant) else None for arg in call.args[::2]]
    starred = any(isinstance(argument, ast.Starred) for argument in call.args)
    return (
        not call.keywords
        and not starred
        and all(
            # pandas reads the name as a pattern: no other letter may turn it into another option
            isinstance(name, str) and name.startswith(policy.option_prefixes) and _OPTION_NAME(name)
            for name in names
        )
    )


_OPEN = _Guard("R11", "open takes a literal path under /workspace/, mode r or rb", _opens_data)
_TYPE = _Guard("R6", "type may only be called, with one argument", _takes_one_argument)
_WRAPS = _Guard("R7", "wraps may only be called, with one argument", _takes_one_argument)
_EXPORT = _Guard("R8", "without a path, in a direct call, it returns text", _returns_text)
_OPTION = _Guard("R8", "only display and mode options, by literal name", _sets_display)


class _ChildFields(dict[type[ast.AST], tuple[str, ...]]):
    """Remember which fields of a node type may hold nodes."""

    def __missing__(self, kind: type[ast.AST]) -> tuple[str, ...]:
        self[kind] = tuple(name for name in kind._fields if name not in _LEAF_FIELDS)
        return self[kind]


_CHILD_FIELDS = _ChildFields()


def _children(level: Iterable[ast.AST]) -> list[ast.AST]:
    below: list[ast.AST] = []
    for node in level:
        for name in _CHILD_FIELDS[type(node)]:
            value = getattr(node, name, None)
            if isinstance(value, list):
                below += [item for item in value if isinstance(item, ast.AST)]
            elif isinstance(value, ast.AST):
                below.append(value)
    return below


def _binders(node: ast.AST) -> Iterator[str]:
    for field in _BINDERS.get(type(node).__name__, ()):
        value = getattr(node, field)
        yield from value if isinstance(value, list) else [value] if value else []


def _imported(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> tuple[str, str]:
    """Return the local name an alias binds, and the dotted name of what it stands for."""
    if isinstance(node, ast.ImportFrom):
        return alias.asname or alias.name, f"{node.module}.{alias.name}"
    first = alias.name.partition(".")[0]
    return (alias.asname, alias.name) if alias.asname else (first, first)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name.strip("_") != ""


def _is_sum(node: ast.BinOp) -> bool:
    return isinstance(node.op, ast.Add)


def _is_super(node: ast.expr | None) -> bool:
    function = node.func if isinstance(node, ast.Call) else None
    return isinstance(function, ast.Name) and function.id == "super"


def _dunders(text: str) -> set[str]:
    words = _WORD.findall(text) if "__" in text else []
    return {word for word in words if _is_dunder(word)}


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else _UNKNOWN


def _is_plain_template(template: object) -> bool:
    pending = [template]
    try:
        while pending:
            for _, field, spec, _ in string.Formatter().parse(_text(pending.pop())):
                if field and not field.isidentifier() and not field.isdecimal():
                    return False
                pending += [spec] if spec else []
    except ValueError:
        return False
    return isinstance(template, str)


def _dispatched(call: ast.Call, methods: frozenset[str]) -> Iterator[ast.expr]:
    """Yield the string expressions that name the function which ``call`` applies."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    stack = [option.value for option in call.keywords if option.arg == "aggfunc"]
    if name == "NamedAgg":
        stack += call.args[1:2]
    elif name in methods and isinstance(call.func, ast.Attribute):
        stack += call.args[:1]
        for option in call.keywords:
            stack += _named_functions(option, every=name in _NAMED_AGGREGATION)
    while stack:
        node = stack.pop()
        if _is_textual(node):
            yield node
        elif name not in _FLAT_DISPATCH:
            stack += _inner(node)


def _named_functions(option: ast.keyword, *, every: bool) -> list[ast.expr]:
    """Return what a keyword of an aggregation names as functions."""
    if option.arg in {"func", "arg"}:
        return [option.value]
    if not every and option.arg is not None:
        return []
    spread = option.value if option.arg is None else None
    values = spread.values if isinstance(spread, ast.Dict) else [option.value]
    return [_second(value) for value in values]


def _second(value: ast.expr) -> ast.expr:
    """Return the function of a named aggregation, which is a tuple (column, function)."""
    return value.elts[-1] if isinstance(value, ast.Tuple) and value.elts else value


def _is_textual(node: ast.expr) -> bool:
    """Return whether ``node`` computes a string out of at least one literal."""
    while isinstance(node, ast.BinOp):
        if _is_textual_leaf(node.right):
            return True
        node = node.left
    return _is_textual_leaf(node)


def _is_textual_leaf(node: ast.expr) -> bool:
    literal = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return literal or isinstance(node, ast.JoinedStr)


def _inner(node: ast.expr) -> list[ast.expr]:
    """Return the expressions whose values pandas could take from this one."""
    match node:
        case ast.List(elts=values) | ast.Set(elts=values) | ast.Tuple(elts=values):
            return values
        case ast.Dict(values=values) | ast.BoolOp(values=values):
            return values
        case ast.BinOp(left=left, right=right):
            return [left, right]
        case ast.IfExp(body=body, orelse=orelse):
            return [body, orelse]
        case ast.Starred(value=value) | ast.NamedExpr(value=value):
            return [value]
    return []


def _characters(line: bytes, offset: int) -> int:
    """Turn an offset in UTF-8 bytes into a 1-based column in characters."""
    return len(line[:offset].decode(errors="ignore")) + 1


def _printable(text: str, limit: int = _TEXT_LENGTH) -> str:
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:limit])
    return shown if len(shown) <= limit and len(text) <= limit else shown[: limit - 1] + "…"


class _Check:
    """One validation: the source, what it binds, and what was found."""

    def __init__(self, policy: Policy, code: str) -> None:
        self.policy = policy
        self.code = code
        self.lines: list[str] = []
        self.found: list[_Finding] = []
        self.bound: set[str] = set()
        self.own_attributes: set[str] = set()
        self.modules: dict[str, str] = {}  # local name -> the module it stands for
        self.guarded: dict[str, str] = {}  # local name -> the function that may only be called
        self.cleared: set[int] = set()  # id() of nodes that their parent already judged
        self.plain_names: set[str] = set()  # loading these is always fine
        self.plain_attributes: set[str] = set()  # so far: reading these from a value is
        self.name_dunders = policy.definable_dunders | policy.constant_dunders

    def run(self) -> None:
        tree = self._parse() if self._readable() else None
        nodes = self._flatten(tree) if tree else []
        for node in nodes:
            if type(node).__name__ in _BINDING_KINDS:
                self._collect(node)
        self.plain_names = self._find_plain_names()
        plan = {kind: self._handler(kind.__name__) for kind in set(map(type, nodes))}
        for node in nodes:
            handler = plan[type(node)]
            if handler is not None:
                handler(self, node)

    # What is wrong with the text itself (R0).

    def _readable(self) -> bool:
        size, limit = len(self.code.encode(errors="surrogatepass")), self.policy.max_code_bytes
        if size > limit:
            self._add_at("R0", 1, 1, f"the source has {size} bytes, the limit is {limit}")
            return False
        text = self.code.replace("\r\n", "\n")
        self.lines = text.split("\n")
        for number, line in enumerate(self.lines[:2], 1):
            if _COOKIE.match(line):
                self._add_at("R0", number, 1, "a coding comment is refused", "coding comment")
        match, message = _UNREADABLE.search(text), "NUL, a lone CR or half a surrogate pair"
        if match is None:
            match, message = self._long_import(text), "an import with too many dots"
        if match:
            before = text[: match.start()]
            column = match.start() - before.rfind("\n")
            self._add_at("R0", before.count("\n") + 1, column, f"{message} is refused")
        return match is None

    def _long_import(self, text: str) -> re.Match[str] | None:
        most = self.policy.max_import_dots
        logical = text.replace("\\\n", "").split("\n")
        if max(line.count(".") for line in logical) <= most:
            return None
        runs = (run for run in _IMPORT_RUN.finditer(text) if run.group().count(".") > most)
        return next(runs, None)

    def _parse(self) -> ast.Module | None:
        try:
            with _PARSE_LOCK, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(self.code)
        except SyntaxError as error:
            line, column = error.lineno or 1, error.offset or 1
            self._add_at("R0", line, column, f"syntax error: {error.msg[:200]}", "syntax error")
        except (ValueError, OverflowError, RecursionError, MemoryError):
            self._add_at("R0", 1, 1, "the source is too deeply nested or too large to parse")
        return None

    def _flatten(self, tree: ast.Module) -> list[ast.AST]:
        """Return all nodes, parents first, level by level; nothing when a cap is hit."""
        nodes: list[ast.AST] = []
        level: list[ast.AST] = [tree]
        for _ in range(self.policy.max_depth):
            nodes += level
            if not level or len(nodes) > self.policy.max_nodes:
                break
            level = _children(level)
        if not level:
            return nodes
        limits = f"{self.policy.max_depth} levels or {self.policy.max_nodes} nodes"
        where = next((node for node in level if hasattr(node, "lineno")), tree)
        self._add("R0", where, f"the syntax tree has more than {limits}")
        return []

    # What the code binds: needed before the first node can be judged.

    def _collect(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                self.bound.add(node.id)
        elif isinstance(node, ast.Attribute):
            if isinstance(node.ctx, ast.Store):
                self.own_attributes.add(node.attr)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                self._collect_alias(node, alias)
        else:
            self.bound.update(_binders(node))

    def _collect_alias(self, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> None:
        local, target = _imported(node, alias)
        self.bound.add(local)
        if target in self.policy.modules:
            self.modules.setdefault(local, target)
        elif isinstance(node, ast.ImportFrom) and self._guard_of(alias.name):
            self.guarded[local] = alias.name

    def _find_plain_names(self) -> set[str]:
        known = {name for name in self.bound if not _is_dunder(name)} | self.policy.builtins
        special = {"open", "type", *self.modules, *self.guarded}
        return known - special - self.policy.refused_builtins

    # One handler per node type; the table is at the end of the module.

    def _handler(self, kind: str) -> "_Handler | None":
        return _HANDLERS.get(kind) if kind in self.policy.nodes else _Check.visit_refused_node

    def visit_refused_node(self, node: ast.AST) -> None:
        kind = type(node).__name__
        thing = "async" if kind.startswith(("Async", "Await")) else kind
        self._add("R1", node, f"{kind} is not allowed", thing)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        if node.is_async:
            self._add("R1", node.target, "an async comprehension is not allowed", "async")

    def visit_import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name not in self.policy.modules or alias.name == "__future__":
                self._refuse_import(alias, alias.name)
            self._bind_alias(node, alias)

    def visit_import_from(self, node: ast.ImportFrom) -> None:
        known = None if node.level else self.policy.modules.get(node.module or "")
        if known is None:
            self._refuse_import(node, "." * node.level + (node.module or ""))
        for alias in node.names:
            if known is not None and f"{node.module}.{alias.name}" not in self.policy.modules:
                self._imported_name(alias, node.module or "", known)
            self._bind_alias(node, alias)

    def _refuse_import(self, node: ast.AST, name: str) -> None:
        things = (f"import {name}", f"import {name.partition('.')[0]}")
        self._add("R2", node, f"the module {name} is not allowed", *things)

    def _imported_name(self, alias: ast.alias, module: str, known: frozenset[str]) -> None:
        name = alias.name
        if _is_dunder(name):
            self._add("R3", alias, f"the name {name} is reserved", name)
        elif self._is_sink(name, self.policy.library_sinks) and name not in known:
            self._add("R8", alias, f"{module}.{name} reads, writes or evaluates", name)
        elif name not in known:
            self._add("R2", alias, f"{module} has no allowed name {name}", name)

    def _bind_alias(self, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> None:
        local, target = _imported(node, alias)
        # Inside a class __x becomes _Class__x: the module would escape under that name.
        if local.startswith("__") and target != "__future__":
            self._add("R3", alias, f"the name {local} is reserved", local)
        elif self.modules.get(local) != target or local in _SELF:
            self._bind(alias, local)

    def visit_binding(self, node: ast.AST) -> None:
        dunders = self.policy.definable_dunders if isinstance(node, ast.FunctionDef) else _NONE
        for name in _binders(node):
            self._bind(node, name, dunders)

    def _bind(self, node: ast.AST, name: str, dunders: frozenset[str] = _NONE) -> None:
        if name in self.policy.refused_builtins:
            self._add("R6", node, f"the builtin {name} may not be rebound", name)
        elif _is_dunder(name) and name not in dunders:
            self._add("R3", node, f"the name {name} is reserved", name)
        elif name in self.modules:
            self._add("R7", node, f"{name} is an imported module: use another name", "rebound")
        elif name in _SELF and not isinstance(node, ast.arg):
            self._add("R4", node, f"{name} is only the first argument of a method", "rebound self")

    def visit_name(self, node: ast.Name) -> None:
        name = node.id
        if not isinstance(node.ctx, ast.Load):
            self._bind(node, name, self.name_dunders)
        elif name not in self.plain_names and id(node) not in self.cleared:
            self._refuse_name(node, name)

    def _refuse_name(self, node: ast.Name, name: str) -> None:
        if name in self.policy.refused_builtins:
            self._add("R6", node, f"the builtin {name} is not allowed", name)
        elif name in self.modules:
            self._add("R7", node, f"the module {name} is used as a value", "module value")
        elif guard := self._guard(node):
            thing = "open variable" if name == "open" and name in self.bound else name
            self._add(guard.rule, node, guard.message, thing)
        elif _is_dunder(name) and name not in self.name_dunders:
            self._add("R3", node, f"the name {name} is reserved", name)
        elif name not in self.bound and name not in self.policy.builtins:
            self._add("R6", node, f"{name} is neither defined here nor an allowed builtin", name)

    def visit_attribute(self, node: ast.Attribute) -> None:
        module = self._module_of(node.value)
        if module is None and node.attr in self.plain_attributes:
            return
        stored = not isinstance(node.ctx, ast.Load)
        if module is not None:
            self.cleared.add(id(node.value))
        problem = self._identifier(node.attr, node.value, stored=stored)
        if problem is None and module is not None:
            problem = self._member(module, node, stored=stored)
        elif problem is None:
            problem = self._method(node.attr)
        if problem is None and id(node) not in self.cleared:
            problem = self._uncalled(node)
        self._report(problem, node, node.attr)
        if problem is None and module is None and not self._depends(node.attr):
            self.plain_attributes.add(node.attr)

    def _depends(self, name: str) -> bool:
        """Return whether the next use of this attribute name may be judged otherwise."""
        return name.startswith("_") or name in _FORMAT or self._guard_of(name) is not None

    def _module_of(self, node: ast.expr) -> str | None:
        """Return the module that ``node`` is, if it is one: ``np.random`` is numpy.random."""
        attributes: list[str] = []
        while isinstance(node, ast.Attribute) and len(attributes) < _MODULE_DEPTH:
            attributes.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.modules:
            return None
        path = ".".join([self.modules[node.id], *reversed(attributes)])
        return path if path in self.policy.modules else None

    def _identifier(self, name: str, base: ast.expr | None, *, stored: bool) -> "_Problem":
        """Judge an attribute name that is wrong on any object (R3, R4, R5, R7)."""
        policy = self.policy
        if _is_dunder(name):
            allowed = policy.writable_dunders if stored else policy.readable_dunders
            if name in allowed or (name in policy.definable_dunders and _is_super(base)):
                return None
            return "R3", f"the attribute {name} is reserved"
        if name.startswith("_") and name not in policy.public_privates:
            own = isinstance(base, ast.Name) and base.id in _SELF
            return None if own else ("R4", f"{name} is private to its object")
        if name in policy.introspection:
            return "R5", f"{name} leads to the interpreter's internals"
        return ("R7", f"{name} is a system module") if name in policy.system_modules else None

    def _member(self, module: str, node: ast.Attribute, *, stored: bool) -> "_Problem":
        path = f"{module}.{node.attr}"
        if path in self.policy.modules:
            used = id(node) in self.cleared
            return None if used else ("R7", f"the module {path} is used as a value")
        if node.attr in self.policy.modules[module] or node.attr in self.policy.readable_dunders:
            return ("R7", f"{path} may not be changed") if stored else None
        if self._is_sink(node.attr, self.policy.library_sinks):
            return "R8", f"{path} reads, writes or evaluates"
        return "R7", f"{path} is not on the list of allowed names"

    def _method(self, name: str) -> "_Problem":
        if not self._is_sink(name, self.policy.sinks):
            return None
        own = name in self.own_attributes or name in self.bound
        harmless = own and name not in self.policy.sinks
        return None if harmless else ("R8", f".{name} reads, writes or evaluates")

    def _is_sink(self, name: str, sinks: frozenset[str]) -> bool:
        if name in sinks or not name.startswith(self.policy.sink_prefixes):
            return name in sinks
        return name not in self.policy.honest_conversions | self.policy.text_exporters

    def _uncalled(self, node: ast.Attribute) -> "_Problem":
        if node.attr in _FORMAT:
            plain = isinstance(node.value, ast.Constant) and _is_plain_template(node.value.value)
            message = f".{node.attr} needs a literal template without attributes or indexes"
            return None if plain else ("R10", message)
        guard = self._guard(node)
        return guard and (guard.rule, guard.message)

    def visit_match_class(self, node: ast.MatchClass) -> None:
        for name in node.kwd_attrs:
            read = ast.Attribute(value=node.cls, attr=name, ctx=ast.Load())
            problem = self._identifier(name, None, stored=False) or self._method(name)
            self._report(problem or self._uncalled(read), node, name)

    # Calls: the only way some functions may be used (R6, R8, R11), and string dispatch (R9).

    def _guard(self, node: ast.expr) -> "_Guard | None":
        """Return what restricts the function that ``node`` names, if anything does."""
        if isinstance(node, ast.Attribute):
            return self._guard_of(node.attr)
        if not isinstance(node, ast.Name):
            return None
        if node.id == "open":
            return _OPEN
        if node.id == "type" and "type" not in self.bound:
            return _TYPE
        return self._guard_of(self.guarded[node.id]) if node.id in self.guarded else None

    def _guard_of(self, function: str) -> "_Guard | None":
        if function in self.policy.text_exporters:
            return _EXPORT
        if function in self.policy.option_calls:
            return _OPTION
        return _WRAPS if function == "wraps" else None

    def visit_call(self, node: ast.Call) -> None:
        guard = self._guard(node.func)
        if guard is not None and guard.is_honest(self.policy, node):
            self.cleared.add(id(node.func))
        for value in _dispatched(node, self.policy.string_dispatch):
            text = "".join(self._fold(value))
            if text not in self.policy.reductions:
                self._add("R9", value, "a function named by a string must be a listed reduction")

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg and _is_dunder(node.arg):
            self._add("R3", node, f"the name {node.arg} is reserved", node.arg)

    # Strings (R10).

    def visit_expression(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            self.cleared.add(id(node.value))  # a docstring goes nowhere

    def visit_constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str | bytes) and id(node) not in self.cleared:
            self._judge_text(node, _dunders(_text(node.value)))

    def visit_joined(self, node: ast.BinOp | ast.JoinedStr) -> None:
        if id(node) in self.cleared or (isinstance(node, ast.BinOp) and not _is_sum(node)):
            return
        parts = self._fold(node)
        whole = _dunders("".join(parts))
        if whole:  # what one part spells out alone is reported at that part
            self._judge_text(node, whole.difference(*map(_dunders, parts)))

    def _judge_text(self, node: ast.AST, dunders: set[str]) -> None:
        refused = sorted(dunders - self.policy.text_dunders)
        if refused:
            self._add("R10", node, f"the text spells {refused[0]}", refused[0])

    def _fold(self, node: ast.AST) -> list[str]:
        """Return the pieces of a string expression, without running any of it."""
        parts: list[str] = []
        stack = [node]
        while stack:
            item = stack.pop()
            if isinstance(item, ast.Constant):
                parts.append(_text(item.value))
            elif isinstance(item, ast.BinOp) and _is_sum(item):
                self.cleared.add(id(item))
                stack += [item.right, item.left]
            elif isinstance(item, ast.JoinedStr):
                self.cleared.add(id(item))
                stack += reversed(item.values)
            elif isinstance(item, ast.FormattedValue) and item.format_spec is None:
                stack.append(item.value)
            else:
                parts.append(_UNKNOWN)
        return parts

    # Findings.

    def _report(self, problem: "_Problem", node: ast.AST, thing: str) -> None:
        if problem is not None:
            self._add(problem[0], node, problem[1], thing)

    def _add(self, rule: str, node: ast.AST, message: str, *things: str) -> None:
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        last, end = getattr(node, "end_lineno", None), getattr(node, "end_col_offset", None)
        raw = self._line(last or line).encode()
        if isinstance(node, ast.Attribute) and end is not None:
            start = end - len(node.attr.encode())
            if raw[max(start, 0) : end] == node.attr.encode():
                line, offset = last, start
        stop = _characters(raw, end) if last == line and end is not None else None
        column = _characters(self._line(line).encode(), offset)
        self._add_at(rule, line, column, message, *things, stop=stop)

    def _add_at(  # the arguments are one finding
        self, rule: str, line: int, column: int, message: str, *things: str, stop: int | None = None
    ) -> None:
        line = min(max(line, 1), max(len(self.lines), 1))
        column = min(max(column, 1), len(self._line(line)) + 1)
        self.found.append(_Finding(line, column, rule, stop, message, things))

    def _line(self, number: int) -> str:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def report(self) -> ValidationReport:
        """Order the findings, cut them to the limit and say so in the last one."""
        found = sorted(self.found, key=lambda item: (item.line, item.column, int(item.rule[1:])))
        limit = self.policy.max_violations
        if len(found) > limit:
            first = found[limit - 1]
            message = f"{len(found) - limit + 1} more violations are left out, the limit is {limit}"
            found[limit - 1 :] = [first._replace(rule="R0", message=message, things=("limit",))]
        return ValidationReport(tuple(self._violation(item) for item in found))

    def _violation(self, item: _Finding) -> Violation:
        stop = None if item.stop is None else item.stop - 1
        text = _printable(self._line(item.line)[item.column - 1 : stop].rstrip())
        hint = self.policy.hint(item.rule, *item.things)
        return Violation(item.rule, item.line, item.column, text, _printable(item.message, 400), hint)


_Problem = tuple[str, str] | None  # rule and message
_Handler = Callable[[_Check, Any], None]

_HANDLERS: dict[str, _Handler] = {
    **dict.fromkeys(_BINDERS, _Check.visit_binding),
    "Attribute": _Check.visit_attribute,
    "BinOp": _Check.visit_joined,
    "Call": _Check.visit_call,
    "Constant": _Check.visit_constant,
    "Expr": _Check.visit_expression,
    "Import": _Check.visit_import,
    "ImportFrom": _Check.visit_import_from,
    "JoinedStr": _Check.visit_joined,
    "MatchClass": _Check.visit_match_class,
    "Name": _Check.visit_name,
    "comprehension": _Check.visit_comprehension,
    "keyword": _Check.visit_keyword,
}
