"""Find what only the compiler refuses, such as ``return`` outside a function (R0): it compiles, and runs nothing.

To compile all of the code takes nearly as long as to parse it. So the compiler only gets the statements in which there
is something that a compiler may refuse.
"""

import ast
from collections.abc import Iterator

from tasks.checks.context import Context
from tasks.checks.source import undisturbed

__all__ = ["check_legality"]

# Where the compiler's work grows faster than the code: left to the container, which has a deadline.
_MOST_CAPTURES = 500  # each name in a pattern is rotated below all others
_MOST_UNWINDINGS = 200_000  # each jump out of a block repeats how each block around it ends
_MOST_COPIES = 4_000_000  # each scope gets a copy of the names around it
_MOST_SCOPES = 1_000  # the code of each is compared with that of all others; 1,600 take 60 ms, 12,000 take 3 s
_MOST_BIG_NUMBERS = 1_000  # 10,000 whose hashes are all 1 make a set in 3 s
_BIG = 1 << 61  # the hash of what is smaller is the number itself

# From 3.12 on a comprehension is a handler to the compiler, and 21 to 23 handlers within each other crash all versions
# of Python before the fix of August 2026 (gh-156091).
_INLINED = frozenset({"ListComp", "SetComp", "DictComp"})
_HANDLERS = _INLINED | {"Try", "TryStar", "ExceptHandler", "With", "AsyncWith", "AsyncFor"}
_MOST_HANDLERS = 19

# What is legal in a function if the parser took it. Any other kind, also one of a newer Python, may be refused.
_LEGAL = frozenset(
    """AnnAssign Assert Assign Attribute AugAssign BinOp BoolOp Call Compare Constant Dict DictComp Expr FormattedValue
    FunctionDef GeneratorExp If IfExp Import JoinedStr Lambda List ListComp Name Pass Raise Return Set SetComp Slice
    Subscript Tuple UnaryOp alias arg keyword""".split()
)
_LOOPS = ("For", "While")
_MOST_NESTED = 20  # the compiler refuses more blocks within each other: so many loops in all are no risk
# What is legal in a module and a class too, unless a part of it is not: a "return" then is one of the function.
_SELF_CONTAINED = (ast.AnnAssign, ast.Assert, ast.Assign, ast.AugAssign, ast.Expr, ast.FunctionDef, ast.Import)
_UNBINDABLE = "__debug__"


def check_legality(context: Context) -> None:
    """Compile what may be illegal and throw the result away; that cuts down the tree, so check it last."""
    tree = context.nodes[0] if context.nodes else None
    if not isinstance(tree, ast.Module) or _is_laborious(context) or _handlers(context) > _MOST_HANDLERS:
        return
    _drop_legal(context, tree)
    for node in context.of_kinds(["Try", "TryStar"]):
        if node.finalbody:
            _move_finally(node)
    try:
        with undisturbed():
            compile(tree, "<strategy>", "exec", dont_inherit=True)
    except SyntaxError as error:
        context.findings.add_syntax_error(error)
    except (ValueError, OverflowError, RecursionError, MemoryError, SystemError):
        context.findings.add_at("R0", 1, 1, "the source is too large or too deeply nested to compile")


def _is_laborious(context: Context) -> bool:
    jumps = context.count("Return", "Break", "Continue")
    blocks = context.count("Try", "TryStar", "With", "ExceptHandler")
    scopes = context.count("FunctionDef", "ClassDef", "Lambda", "ListComp", "SetComp", "DictComp", "GeneratorExp")
    return (
        context.count("MatchAs", "MatchStar") > _MOST_CAPTURES
        or jumps * blocks > _MOST_UNWINDINGS
        or scopes > _MOST_SCOPES
        or scopes * len(context.bound) > _MOST_COPIES
        or sum(_is_big(node.value) for node in context.of_kinds(["Constant"])) > _MOST_BIG_NUMBERS
    )


def _is_big(value: object) -> bool:
    return isinstance(value, int) and value >= _BIG - 1


def _handlers(context: Context) -> int:
    """Return how many handlers, at most, there are around an inlined comprehension, with its own."""
    most, ends = 0, list[tuple[int, int]]()
    for node in sorted(context.of_kinds(_HANDLERS), key=lambda node: (node.lineno, node.col_offset)):
        while ends and ends[-1] <= (node.lineno, node.col_offset):
            ends.pop()
        ends.append((node.end_lineno, node.end_col_offset))
        if type(node).__name__ in _INLINED:
            most = max(most, len(ends))
    return most


def _drop_legal(context: Context, tree: ast.Module) -> None:
    """Take the statements out of the module and its classes that are legal whatever else there is."""
    if context.count("Global", "Nonlocal") or _UNBINDABLE in context.bound | context.own_attributes:
        return
    suspects = set(_suspect_lines(context))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            node.body = _suspect(node.body, suspects) or [ast.copy_location(ast.Pass(), node)]
    tree.body = _suspect(tree.body, suspects)


def _suspect(body: list[ast.stmt], suspects: set[int]) -> list[ast.stmt]:
    return [node for node in body if not (isinstance(node, _SELF_CONTAINED) and suspects.isdisjoint(_lines(node)))]


def _lines(node: ast.stmt) -> range:
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    first = decorators[0] if decorators else node
    return range(first.lineno, (node.end_lineno or node.lineno) + 1)


def _suspect_lines(context: Context) -> Iterator[int]:
    """Yield a line of each thing that may be illegal where it stands."""
    legal = _LEGAL.union(_LOOPS) if context.count(*_LOOPS) <= _MOST_NESTED else _LEGAL
    # What has no line is a part of what has one.
    yield from (node.lineno for node in context.of_kinds(context.kinds.keys() - legal) if hasattr(node, "lineno"))
    for node in context.of_kinds(["Call", "FunctionDef", "Lambda"]):
        names = [part.arg for part in _named_parts(node)]
        if len({*names, _UNBINDABLE}) <= len(names):  # one of them is there twice, or is that one
            yield node.lineno
    yield from (node.target.lineno for node in context.of_kinds(["comprehension"]) if node.is_async)
    # Before Python 3.12 the parts of a long f-string may claim to be on other lines.
    yield from (node.lineno for node in context.of_kinds(["JoinedStr"]) if node.lineno != node.end_lineno)
    future = [node.lineno for node in context.of_kinds(["ImportFrom"]) if node.module == "__future__"]
    yield from range(1, max(future, default=1))  # what stands before makes it illegal


def _named_parts(node: ast.Call | ast.FunctionDef | ast.Lambda) -> list[ast.keyword] | list[ast.arg]:
    if isinstance(node, ast.Call):
        return node.keywords
    every = node.args
    starred = [part for part in (every.vararg, every.kwarg) if part]
    return [*every.posonlyargs, *every.args, *every.kwonlyargs, *starred]


def _move_finally(node: ast.Try | ast.TryStar) -> None:
    """Put ``finally`` where it is as legal: in its own place the compiler copies it, and copies within copies."""
    node.orelse += node.finalbody
    node.finalbody = []
    if not node.handlers:
        place = ast.copy_location(ast.Pass(), node)
        node.handlers.append(ast.copy_location(ast.ExceptHandler(type=None, name=None, body=[place]), node))
