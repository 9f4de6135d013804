"""What one validation knows, shared by all checks."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tasks.checks.findings import Findings
from tasks.policy import Policy

__all__ = ["SELF", "Context", "is_dunder"]

SELF = frozenset({"self", "cls"})


def is_dunder(name: str) -> bool:
    """Return whether Python reserves ``name``, as it does ``__class__``."""
    return name.startswith("__") and name.endswith("__") and name.strip("_") != ""


@dataclass(slots=True)
class Context:
    """One validation: the policy, what the code binds, and what was found."""

    policy: Policy
    findings: Findings
    nodes: list[ast.AST] = field(default_factory=list)  #: all of them, parents first
    bound: set[str] = field(default_factory=set)
    own_attributes: set[str] = field(default_factory=set)
    modules: dict[str, str] = field(default_factory=dict)  #: local name -> the module it stands for
    guarded: dict[str, str] = field(default_factory=dict)  #: local name -> the function that may only be called
    cleared: set[int] = field(default_factory=set)  #: id() of nodes that their parent already judged
    plain_names: set[str] = field(default_factory=set)  #: loading these is always fine
    plain_attributes: set[str] = field(default_factory=set)  #: so far: reading these from a value is
    own_loads: dict[str, set[int]] = field(default_factory=dict)  #: see ``scopes``: found when a check asks
    uses: Any = None  #: see ``scopes``: built when a check asks for it
    assigned: dict[str, list[ast.expr]] | None = None  #: see ``assignments``: built when a check asks for it
    plain_templates: dict[str, bool] = field(default_factory=dict)  #: variables that hold harmless format strings
    method_texts: list[ast.AST] = field(default_factory=list)  #: strings that name a method which writes
    dispatched: set[int] = field(default_factory=set)  #: id() of nodes judged as the name of a function
    seen_variables: set[str] = field(default_factory=set)  #: all they may hold was judged so
    has_opaque_dispatch: bool = False  #: some function to apply could not be seen
    kinds: dict[str, list[ast.AST]] = field(default_factory=dict)  #: the nodes by the name of their type
    name_dunders: frozenset[str] = field(init=False)  #: dunders that a plain name may be

    def adopt(self, nodes: list[ast.AST]) -> None:
        """Take the nodes of the code, and sort them by kind."""
        self.nodes = nodes
        kinds: defaultdict[type[ast.AST], list[ast.AST]] = defaultdict(list)
        for node in nodes:
            kinds[type(node)].append(node)
        self.kinds = {kind.__name__: found for kind, found in kinds.items()}

    def of_kinds(self, names: Iterable[str]) -> Iterator[Any]:
        """Yield the nodes of these kinds, kind by kind."""
        for name in names:
            yield from self.kinds.get(name, [])

    def count(self, *names: str) -> int:
        """Return how many nodes are of these kinds."""
        return sum(len(self.kinds.get(name, [])) for name in names)

    def __post_init__(self) -> None:
        self.name_dunders = self.policy.definable_dunders | self.policy.constant_dunders
