"""Find what each variable may hold, as far as assignments say so, wherever in the code they stand."""

import ast

from tasks.checks.bindings import BINDERS, bound_names
from tasks.checks.context import Context

__all__ = ["UNKNOWN", "values_of"]

UNKNOWN = ast.expr()  # stands for a value that no assignment shows, such as that of an argument

_ASSIGNING = ("Assign", "AnnAssign", "AugAssign", "NamedExpr", "For", "comprehension", "arguments", "Match")
# What binds a name to something else than a function, a class or nothing new.
_BINDING = [kind for kind in BINDERS if kind not in {"FunctionDef", "ClassDef", "Global", "Nonlocal"}]


def values_of(context: Context, name: str) -> list[ast.expr]:
    """Return the expressions that may be assigned to ``name``, or, if it is ``.name``, to such an attribute."""
    if context.assigned is None:
        context.assigned = _Assignments(context)
    return context.assigned.get(name, [])


class _Assignments(dict[str, list[ast.expr]]):
    """The expressions assigned to each name."""

    def __init__(self, context: Context) -> None:
        """Look for values first, then for names that got none."""
        super().__init__()
        self._explained: set[int] = set()
        for node in context.of_kinds(_ASSIGNING):
            self._read(node)
        for node in context.of_kinds(["Name"]):
            if isinstance(node.ctx, ast.Store) and id(node) not in self._explained:
                self._add(node.id, UNKNOWN)
        for node in context.of_kinds(_BINDING):
            for name in bound_names(node):
                self._add(name, UNKNOWN)

    def _read(self, node: ast.AST) -> None:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, value)
            case ast.NamedExpr(target=target, value=value):
                self._assign(target, value)
            case ast.AugAssign(target=target, op=op, value=value):  # the name alone says nothing: a piece of a text
                is_text = isinstance(value, ast.Constant | ast.JoinedStr)
                whole = ast.BinOp(left=UNKNOWN, op=op, right=value)
                self._assign(target, ast.copy_location(whole, node) if is_text else value)
            case ast.For(target=target, iter=values) | ast.comprehension(target=target, iter=values):
                self._assign_each(target, values)
            case ast.arguments():
                self._read_defaults(node)
            case ast.Match(subject=subject, cases=cases):
                patterns = (part for case in cases for part in ast.walk(case.pattern))
                for name in (name for part in patterns for name in bound_names(part)):
                    self._add(name, subject)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        stack = [(target, value)]
        while stack:
            target, value = stack.pop()
            if isinstance(target, ast.Name):
                self._explained.add(id(target))
                self._add(target.id, value)
            elif isinstance(target, ast.Attribute):
                self._add(f".{target.attr}", value)
            elif isinstance(target, ast.Subscript | ast.Starred):
                stack.append((target.value, value))
            elif isinstance(target, ast.Tuple | ast.List):
                stack += zip(target.elts, _spread(value, target.elts), strict=True)

    def _assign_each(self, target: ast.expr, values: ast.expr) -> None:
        rows = values.elts if isinstance(values, ast.List | ast.Tuple | ast.Set) else []
        columns = target.elts if isinstance(target, ast.Tuple | ast.List) else []
        exact = columns and all(isinstance(column, ast.Name) for column in columns)
        exact = exact and all(isinstance(row, ast.Tuple) and len(row.elts) == len(columns) for row in rows)
        for row in rows if exact and rows else [values]:
            self._assign(target, row)

    def _read_defaults(self, node: ast.arguments) -> None:
        positional = [*node.posonlyargs, *node.args]
        pairs = [*zip(reversed(positional), reversed(node.defaults), strict=False)]
        pairs += [(arg, value) for arg, value in zip(node.kwonlyargs, node.kw_defaults, strict=True) if value]
        for arg, value in pairs:
            self._add(arg.arg, value)

    def _add(self, name: str, value: ast.expr) -> None:
        self.setdefault(name, []).append(value)


def _spread(value: ast.expr, targets: list[ast.expr]) -> list[ast.expr]:
    """Return what each of ``targets`` gets of ``value``: all of it where that is not plain."""
    values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    if len(values) != len(targets) or any(isinstance(item, ast.Starred) for item in [*targets, *values]):
        return [value] * len(targets)
    return values
