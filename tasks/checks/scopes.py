"""Tell where a variable that is called like a builtin, such as ``open``, can still be that builtin.

In a function a name that is bound anywhere is never the builtin. In a module or a class body it is the builtin until
it is bound, so there only what follows a binding in the same suite, or inside what follows, is certain. The same holds
for what an import calls so, such as ``from enum import Enum``: that import makes no name the code's own.
"""

import ast
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeGuard

from tasks.checks.bindings import BINDING_KINDS, bound_names, imported
from tasks.checks.context import Context

__all__ = ["own_loads"]

# To follow one name takes as long as the code has nodes, and code can have thousands of such names: none of those that
# come after so many nodes is taken for the code's own.
_MOST_FOLLOWED = 300_000

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class _Place(NamedTuple):
    """Where a node stands: whether the name is the code's own there, and in functions nested there."""

    own: bool = False
    nested: bool = False
    is_module: bool = False

    def bound(self) -> "_Place":
        """Return what holds after a binding in a suite; functions look through a module, but not through a class."""
        return _Place(own=True, nested=self.nested or self.is_module, is_module=self.is_module)


class _Name(NamedTuple):
    """The name in question, and on which lines of the source it is read and bound: the rest is not looked at."""

    text: str
    read: list[int]
    bound: list[int]
    flows: bool  # no statement uncovers the builtin again
    imported: bool  # an import of what is guarded binds it too


class _Uses:
    """Where the names in question are read and bound: found once, for all of them."""

    def __init__(self, context: Context) -> None:
        """Look at all nodes that read or bind a name."""
        names = {"open", "type", *context.guarded}
        self.loads: defaultdict[str, list[int]] = defaultdict(list)
        self.binders: defaultdict[str, list[ast.AST]] = defaultdict(list)
        self.left = _MOST_FOLLOWED
        self._top = {id(node) for module in context.of_kinds(["Module"]) for node in module.body}
        for node in context.of_kinds(["Name"]):
            if node.id in names and isinstance(node.ctx, ast.Load):
                self.loads[node.id].append(node.lineno)
        for node in context.of_kinds(BINDING_KINDS):
            for name in names.intersection(_bound_by(node)):
                self.binders[name].append(node)

    def find(self, text: str, *, guarded: bool) -> _Name | None:
        """Return the name ``text``, which an import may guard, or None where no load of it can be the code's own."""
        binders = self.binders[text]
        imports = [node for node in binders if guarded and isinstance(node, ast.ImportFrom)]
        others = [node for node in binders if not isinstance(node, ast.Import | ast.ImportFrom)]
        at_top = all(id(node) in self._top for node in imports)
        if at_top and not others and len(imports) == len(binders):
            return None
        if imports and any(isinstance(node, ast.Global | ast.Nonlocal) for node in others):
            return None  # it may be imported from within any function
        lines = sorted(map(_first_line, others))
        # What is imported at the top, once and before it is bound, does not come back.
        comes_back = bool(imports and lines) and max(map(_first_line, imports)) >= lines[0]
        flows = at_top and not comes_back and not any(map(_may_unbind, binders))
        read, bound = sorted(self.loads[text]), sorted(map(_first_line, binders))
        return _Name(text, read, bound, flows, imported=bool(imports))


def own_loads(context: Context, text: str) -> set[int]:
    """Return the id() of each node that reads the name ``text`` and cannot get the builtin, or what is guarded."""
    if text not in context.own_loads:
        uses: _Uses = context.uses or _Uses(context)
        context.uses = uses
        name = uses.find(text, guarded=text in context.guarded)
        uses.left -= len(context.nodes) if name else 0
        context.own_loads[text] = _find_own_loads(context.nodes[0], name) if name and uses.left >= 0 else set()
    return context.own_loads[text]


def _find_own_loads(tree: ast.AST, name: _Name) -> set[int]:
    found: set[int] = set()
    stack = [(tree, _Place(is_module=True))]
    while stack:
        node, place = stack.pop()
        if _is_load(node, name.text):
            if place.own:
                found.add(id(node))
        elif _touches(node, name.read):
            stack += _inside(node, place, name)
    return found


def _touches(node: ast.AST, lines: list[int]) -> bool:
    """Return whether ``node`` may hold something that stands on one of ``lines``."""
    first = getattr(node, "lineno", None)
    if first is None:
        return True
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.decorator_list:
        first = node.decorator_list[0].lineno
    index = bisect_left(lines, first)
    return index < len(lines) and lines[index] <= (getattr(node, "end_lineno", None) or first)


def _inside(node: ast.AST, place: _Place, name: _Name) -> Iterator[tuple[ast.AST, _Place]]:
    """Yield the parts of ``node``, each with its own place."""
    if isinstance(node, _Function):
        body = node.body if isinstance(node.body, list) else [node.body]
        inner = _function_place([*_parameters(node), *body], place, name)
        yield from ((part, inner) for part in body)
        yield from ((part, place) for part in _around(node))
    elif isinstance(node, _Comprehension):
        yield from _comprehension(node, place, name)
    elif isinstance(node, ast.ClassDef):
        yield from ((part, place) for part in _around(node))
        own = place.nested and not _binds(node.body, name)
        yield from _suite(node.body, _Place(own=own, nested=place.nested), name)
    else:
        yield from _statement(node, place, name)


def _statement(node: ast.AST, place: _Place, name: _Name) -> Iterator[tuple[ast.AST, _Place]]:
    within = place.bound() if name.flows and _binds_before_body(node, name) else place
    for field, value in ast.iter_fields(node):
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            yield from _suite(value, within if field == "body" else place, name)
        elif isinstance(value, list):
            yield from ((item, place) for item in value if isinstance(item, ast.AST))
        elif isinstance(value, ast.AST):
            yield value, place


def _suite(body: list[ast.stmt], place: _Place, name: _Name) -> Iterator[tuple[ast.AST, _Place]]:
    for statement in body:
        yield statement, place
        if name.flows and _binds_surely(statement, name):
            place = place.bound()


def _comprehension(node: _Comprehension, place: _Place, name: _Name) -> Iterator[tuple[ast.AST, _Place]]:
    first = node.generators[0].iter
    yield first, place
    own = place.nested or any(_is_target(part.target, name) for part in node.generators)
    inner = _Place(own=own, nested=own)
    parts = [part for generator in node.generators for part in (generator.target, generator.iter, *generator.ifs)]
    parts += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    yield from ((part, inner) for part in parts if part is not first)


def _function_place(parts: Iterable[ast.AST], place: _Place, name: _Name) -> _Place:
    own = place.nested
    for node in _own_scope(parts, name):
        hides = ast.ImportFrom if name.imported else ast.Global
        if isinstance(node, ast.Global | hides) and _binds_name(node, name.text):
            return _Place()
        own = own or (not isinstance(node, ast.Nonlocal) and _binds_name(node, name.text))
    return _Place(own=own, nested=own)


def _binds(parts: Iterable[ast.AST], name: _Name) -> bool:
    return any(_binds_name(node, name.text) for node in _own_scope(parts, name))


def _own_scope(parts: Iterable[ast.AST], name: _Name) -> Iterator[ast.AST]:
    """Yield the nodes of one scope: not what stands in functions, classes or targets of comprehensions."""
    stack = list(parts)
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, _Function | ast.ClassDef):
            stack += _around(node)
        elif isinstance(node, ast.comprehension):
            stack += [node.iter, *node.ifs]
        else:
            stack += (part for part in ast.iter_child_nodes(node) if _touches(part, name.bound))


def _around(node: _Function | ast.ClassDef) -> Iterator[ast.AST]:
    """Yield what a definition evaluates where it stands: decorators, bases, defaults, annotations."""
    body = {id(part) for part in node.body} if isinstance(node.body, list) else {id(node.body)}
    yield from (
        part for part in ast.iter_child_nodes(node) if id(part) not in body and not isinstance(part, ast.arguments)
    )
    if not isinstance(node, ast.ClassDef):
        yield from (part for part in ast.iter_child_nodes(node.args) if not isinstance(part, ast.arg))
        yield from (item.annotation for item in _parameters(node) if item.annotation)


def _parameters(node: _Function) -> list[ast.arg]:
    return [part for part in ast.walk(node.args) if isinstance(part, ast.arg)]


def _binds_surely(statement: ast.stmt, name: _Name) -> bool:
    """Return whether ``name`` is bound once ``statement`` is done."""
    match statement:
        case ast.Assign(targets=targets):
            return any(_is_target(target, name) for target in targets)
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target, value=ast.expr()):
            return _is_store(target, name.text)
        case ast.FunctionDef() | ast.ClassDef():
            return statement.name == name.text
        case ast.With():
            return _binds_before_body(statement, name)
    return False


def _binds_before_body(node: ast.AST, name: _Name) -> bool:
    """Return whether ``node`` binds ``name`` before its body runs."""
    match node:
        case ast.For(target=target):
            return _is_target(target, name)
        case ast.With(items=items):
            return any(item.optional_vars and _is_target(item.optional_vars, name) for item in items)
        case ast.match_case(pattern=pattern):
            return any(name.text in bound_names(part) for part in ast.walk(pattern))
    return False


def _is_target(target: ast.expr, name: _Name) -> bool:
    """Return whether assigning to ``target`` binds ``name``; an index within it does not."""
    stack = [target]
    while stack:
        part = stack.pop()
        if _is_store(part, name.text):
            return True
        if isinstance(part, ast.Tuple | ast.List):
            stack += part.elts
        elif isinstance(part, ast.Starred):
            stack.append(part.value)
    return False


def _is_load(node: ast.AST, text: str) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and node.id == text and isinstance(node.ctx, ast.Load)


def _is_store(node: ast.AST, text: str) -> bool:
    return isinstance(node, ast.Name) and node.id == text and not isinstance(node.ctx, ast.Load)


def _binds_name(node: ast.AST, text: str) -> bool:
    return text in _bound_by(node)


def _bound_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from (imported(node, alias)[0] for alias in node.names)
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    yield from bound_names(node)


def _may_unbind(node: ast.AST) -> bool:
    return isinstance(node, ast.ExceptHandler) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del))


def _first_line(node: ast.AST) -> int:
    return getattr(node, "lineno", 1)
