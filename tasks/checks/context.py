"""What one validation knows, shared by all checks."""

from dataclasses import dataclass, field

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
    bound: set[str] = field(default_factory=set)
    own_attributes: set[str] = field(default_factory=set)
    modules: dict[str, str] = field(default_factory=dict)  #: local name -> the module it stands for
    guarded: dict[str, str] = field(default_factory=dict)  #: local name -> the function that may only be called
    cleared: set[int] = field(default_factory=set)  #: id() of nodes that their parent already judged
    plain_names: set[str] = field(default_factory=set)  #: loading these is always fine
    plain_attributes: set[str] = field(default_factory=set)  #: so far: reading these from a value is
    name_dunders: frozenset[str] = field(init=False)  #: dunders that a plain name may be

    def __post_init__(self) -> None:
        self.name_dunders = self.policy.definable_dunders | self.policy.constant_dunders
