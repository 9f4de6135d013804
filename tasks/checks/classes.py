"""Find where what makes classes, or arrays over foreign memory, is named harmlessly (R6, R8).

``type(x)`` of a class, ``ABCMeta``, ``Enum`` and ``TypedDict`` make classes whose names exist only when the code runs;
``np.ndarray`` makes objects out of any bytes. No check can follow such a value, so it may stand only where nothing
keeps it: as a base, in an annotation, in ``isinstance``, in a comparison. ``guards`` refuses it everywhere else.
"""

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tasks.checks.assignments import values_of
from tasks.checks.context import Context

__all__ = ["clear_harmless", "is_type_call"]

_ENUMERATIONS = frozenset({"Enum", "Flag", "IntEnum", "IntFlag", "StrEnum"})

_BASES = _ENUMERATIONS | {"TypedDict"}
_NAMED = _ENUMERATIONS | {"ndarray"}  # a caller can be told what they are
_COMPARED = _NAMED | {"type()"}
_TYPE_CALL = frozenset({"type()"})
_ARRAY = frozenset({"ndarray"})
_CLASS_MAKERS = _BASES | {"ABCMeta", "ndarray"}

_TESTS = frozenset({"isinstance", "issubclass"})
_SHOWS = frozenset({"print", "repr", "str"})
_GENERICS = frozenset({"dict", "list", "tuple", "set", "frozenset"})
_UNWRAPPED = frozenset({"Annotated", "Union"})  # Union[C] is C, and Annotated[C, x] can be called like it
_EQUALITY = ast.Is | ast.IsNot | ast.Eq | ast.NotEq | ast.In | ast.NotIn
# Methods that would be handed what is compared or looked up.
_OWN_COMPARISONS = frozenset({"__contains__", "__eq__", "__getitem__", "__ne__", "_missing_"})
_OWN_LOOKUPS = frozenset({"get", "__contains__", "__getitem__", "__hash__"})
# What makes an enumeration, an array over foreign memory or a file; None stands for **.
_MAKING_KEYWORDS = frozenset({"buffer", "classdict", "file", "names", None})
_EARLY_HOOKS = frozenset({"__init_subclass__", "__new__"})  # they run before the first member is there
_PLAIN = ast.Constant | ast.Tuple | ast.List | ast.Dict | ast.UnaryOp | ast.BinOp | ast.JoinedStr
# Calls whose results are members of an enumeration, and no methods of it.
_MEMBER_MAKERS = frozenset(
    {"Decimal", "Fraction", "auto", "date", "datetime", "dict", "float", "frozenset", "int", "list", "object", "range"}
) | {"set", "str", "time", "timedelta", "tuple"}

_Piece = tuple[ast.expr | None, frozenset[str]]  # a part of the code, and what may stand there


def is_type_call(node: ast.AST) -> bool:
    """Return whether ``node`` asks for the class of something."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type"


def clear_harmless(context: Context) -> None:
    """Clear each class maker and each ``type(x)`` that stands where nothing keeps it."""
    _judge_enumerations(context)
    _guard_aliases(context)
    if not _mentions_makers(context):
        return
    for node in context.of_kinds(_POSITIONS):
        for piece, kinds in _POSITIONS[type(node).__name__](context, node):
            if piece is not None and _kind(context, piece) in kinds:
                context.cleared.add(id(piece))


def _kind(context: Context, node: ast.AST) -> str | None:
    """Return which class maker ``node`` is, ``type()`` if it calls type, or None."""
    if isinstance(node, ast.Attribute):
        return node.attr if node.attr in _CLASS_MAKERS else None
    if isinstance(node, ast.Name):
        name = context.guarded.get(node.id, "")
        return name if name in _CLASS_MAKERS else "type" if node.id == "type" else None
    return "type()" if is_type_call(node) else None


def _mentions_makers(context: Context) -> bool:
    return (
        not _CLASS_MAKERS.isdisjoint(context.guarded.values())
        or any(node.attr in _CLASS_MAKERS for node in context.of_kinds(["Attribute"]))
        or any(node.id == "type" for node in context.of_kinds(["Name"]))
    )


def _judge_enumerations(context: Context) -> None:
    """Treat an enumeration without members like ``Enum``: calling it makes another one."""
    heirs: dict[str, list[ast.ClassDef]] = defaultdict(list)
    pending: list[ast.ClassDef] = []
    hooks: list[ast.AST]
    for node in context.of_kinds(["ClassDef"]):
        if any(_kind(context, base) in _ENUMERATIONS for base in node.bases):
            pending.append(node)
        for name in {base.id for base in node.bases if isinstance(base, ast.Name)}:
            heirs[name].append(node)
    classes = _MEMBER_MAKERS.union(node.name for node in context.of_kinds(["ClassDef"]))
    classes = classes.difference(node.name for node in context.of_kinds(["FunctionDef"])) if pending else classes
    has_hooks = not _EARLY_HOOKS.isdisjoint(context.bound)
    seen: set[ast.ClassDef] = set()
    while pending:
        node = pending.pop()
        if node in seen:  # it is the heir of several
            continue
        seen.add(node)
        hooks = [part for part in node.body if getattr(part, "name", "") in _EARLY_HOOKS]
        if has_hooks:  # of a mixin, perhaps
            hooks += (base for base in node.bases if _is_own_mixin(context, base, classes))
        if not _has_member(context, node, classes):
            hooks += node.decorator_list
            _guard(context, node.name, "Enum")
            pending += heirs.pop(node.name, [])
        for hook in hooks:
            context.findings.add("R6", hook, "this could call an enumeration that has no members yet", "Enum")


def _is_own_mixin(context: Context, base: ast.expr, classes: frozenset[str]) -> bool:
    name = _last_name(base)
    return name in classes and name not in _MEMBER_MAKERS and name not in context.guarded


def _has_member(context: Context, node: ast.ClassDef, classes: frozenset[str]) -> bool:
    """Return whether the body of an enumeration certainly makes a member."""
    names = {name: value for statement in node.body for name, value in _assigned(statement)}
    if "_ignore_" in names:
        return False
    return any(not name.startswith("_") and _is_plain_value(context, value, classes) for name, value in names.items())


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    match statement:
        case ast.Assign(targets=targets, value=value):
            yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value


def _is_plain_value(context: Context, value: ast.expr, classes: frozenset[str]) -> bool:
    """Return whether ``value`` is certainly no function: those become methods."""
    if isinstance(value, ast.Call):
        return _makes_plain_value(context, value.func, classes)
    if isinstance(value, ast.Name):
        values = values_of(context, value.id)
        return len(values) == 1 and isinstance(values[0], _PLAIN)
    return isinstance(value, _PLAIN)


def _makes_plain_value(context: Context, function: ast.expr, classes: frozenset[str]) -> bool:
    if isinstance(function, ast.Attribute):
        is_module = isinstance(function.value, ast.Name) and function.value.id in context.modules
        return isinstance(function.value, ast.Constant) or (is_module and function.attr in _MEMBER_MAKERS)
    return isinstance(function, ast.Name) and function.id in classes and not values_of(context, function.id)


def _guard_aliases(context: Context) -> None:
    """Treat ``Array = np.ndarray``, which annotations use, like the name itself."""
    for statement in (statement for module in context.of_kinds(["Module"]) for statement in module.body):
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if _kind(context, value) == "ndarray":
                context.cleared.add(id(value))
                _guard(context, name, "ndarray")


def _guard(context: Context, name: str, function: str) -> None:
    context.guarded[name] = function
    context.plain_names.discard(name)
    context.own_loads[name] = set()  # the code's own binding is the very one to guard


def _in_class(_: Context, node: ast.ClassDef) -> Iterator[_Piece]:
    yield from ((base, _BASES) for base in node.bases)
    yield from ((option.value, frozenset({"ABCMeta"})) for option in node.keywords if option.arg == "metaclass")


def _in_argument(context: Context, node: ast.arg) -> Iterator[_Piece]:
    return _in_annotation(context, node.annotation, _NAMED)


def _in_function(context: Context, node: ast.FunctionDef) -> Iterator[_Piece]:
    return _in_annotation(context, node.returns, _NAMED)


def _in_field(context: Context, node: ast.AnnAssign) -> Iterator[_Piece]:
    return _in_annotation(context, node.annotation, _ARRAY)  # dataclasses.fields would give away an Enum


def _in_alias(context: Context, node: Any) -> Iterator[_Piece]:  # ast.TypeAlias is newer than 3.11
    return _in_annotation(context, node.value, _ARRAY)


def _in_annotation(context: Context, node: ast.expr | None, kinds: frozenset[str]) -> Iterator[_Piece]:
    stack = [node]
    while stack:
        part = stack.pop()
        if isinstance(part, ast.Subscript):
            if kinds is _NAMED:  # of a function: type[C]
                yield part.value, frozenset({"type"})
            if _is_class(context, part.value):
                stack.append(part.slice)
        elif isinstance(part, ast.BinOp):
            stack += [] if "__or__" in context.bound else [part.left, part.right]
        elif isinstance(part, ast.Tuple | ast.List):
            stack += part.elts
        else:
            yield part, kinds


def _in_subscript(context: Context, node: ast.Subscript) -> Iterator[_Piece]:
    """Look into types such as ``Optional[np.ndarray]`` that are values."""
    base = _last_name(node.value)
    many = isinstance(node.slice, ast.Tuple) and len(node.slice.elts) > 1
    parts = [part for argument in _members(node.slice) for part in _members(argument)]  # Callable[[A], B] has a list
    generic = base in _GENERICS or base in context.policy.modules.get("typing", ())
    if generic and (base not in _UNWRAPPED or (base == "Union" and many)) and _is_class(context, node.value):
        yield from ((part, _ARRAY) for part in parts)


def _in_union(context: Context, node: ast.BinOp) -> Iterator[_Piece]:
    if isinstance(node.op, ast.BitOr) and "__or__" not in context.bound:
        yield from ((side, _ARRAY) for side in (node.left, node.right))


def _in_call(context: Context, node: ast.Call) -> Iterator[_Piece]:
    function = node.func
    if isinstance(function, ast.Name) and function.id not in context.bound:
        if function.id in _TESTS:
            yield from ((part, _COMPARED) for argument in node.args for part in _members(argument))
        elif function.id in _SHOWS:
            yield from ((argument, _TYPE_CALL) for argument in node.args)
    elif isinstance(function, ast.Attribute) and function.attr == "get":
        if _OWN_LOOKUPS.isdisjoint(context.bound) and "get" not in context.own_attributes:
            yield from ((argument, _TYPE_CALL) for argument in node.args[:1])
    elif _is_copy_of_self(node):
        yield function, _TYPE_CALL


def _is_copy_of_self(node: ast.Call) -> bool:
    """Return whether ``node`` is like ``type(self)(price=1)``: a class of classes takes no such arguments."""
    if node.args or any(option.arg in _MAKING_KEYWORDS for option in node.keywords):
        return False
    arguments = node.func.args if isinstance(node.func, ast.Call) else []
    return bool(arguments) and isinstance(arguments[0], ast.Name) and arguments[0].id == "self"


def _in_comparison(context: Context, node: ast.Compare) -> Iterator[_Piece]:
    sides = [part for side in (node.left, *node.comparators) for part in _members(side)]
    if not all(isinstance(op, _EQUALITY) for op in node.ops):
        return
    identity = all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
    if identity or _OWN_COMPARISONS.isdisjoint(context.bound) or all(_is_class(context, side) for side in sides):
        yield from ((side, _COMPARED) for side in sides)


def _is_class(context: Context, node: ast.expr) -> bool:
    """Return whether ``node`` is certainly no object with a comparison of its own."""
    if isinstance(node, ast.Name):
        return node.id not in context.bound or not values_of(context, node.id)
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id in context.modules
    return isinstance(node, ast.Constant) or is_type_call(node)


def _in_attribute(_: Context, node: ast.Attribute) -> Iterator[_Piece]:
    yield node.value, _TYPE_CALL | _ARRAY


def _unused(_: Context, node: ast.Expr | ast.FormattedValue) -> Iterator[_Piece]:
    yield node.value, _TYPE_CALL


def _in_pattern(_: Context, node: ast.MatchClass) -> Iterator[_Piece]:
    yield node.cls, _NAMED


def _members(node: ast.expr) -> Iterable[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


_POSITIONS: dict[str, Callable[[Context, Any], Iterator[_Piece]]] = {
    "AnnAssign": _in_field,
    "Attribute": _in_attribute,
    "BinOp": _in_union,
    "Call": _in_call,
    "ClassDef": _in_class,
    "Compare": _in_comparison,
    "Expr": _unused,
    "FormattedValue": _unused,
    "FunctionDef": _in_function,
    "MatchClass": _in_pattern,
    "Subscript": _in_subscript,
    "TypeAlias": _in_alias,
    "arg": _in_argument,
}
