"""Find what only the compiler refuses, such as ``return`` outside a function (R0): it compiles, and runs nothing."""

import ast
import warnings

from tasks.checks.context import Context
from tasks.checks.source import PARSE_LOCK

__all__ = ["check_legality"]

# Where the compiler's work grows faster than the code: left to the container, which has a deadline.
_MOST_CAPTURES = 500  # each name in a pattern is rotated below all others
_MOST_UNWINDINGS = 200_000  # each jump out of a block repeats how each block around it ends
_MOST_COPIES = 4_000_000  # each scope gets a copy of the names around it
_MOST_SCOPES = 1_000  # the code of each is compared with that of all others; 1,600 take 60 ms, 12,000 take 3 s


def check_legality(context: Context) -> None:
    """Compile the tree and throw the result away; its ``finally`` blocks are moved, so check it last."""
    tree = context.nodes[0] if context.nodes else None
    if not isinstance(tree, ast.Module) or _is_laborious(context):
        return
    for node in context.of_kinds(["Try", "TryStar"]):
        if node.finalbody:
            _move_finally(node)
    try:
        with PARSE_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
    )


def _move_finally(node: ast.Try | ast.TryStar) -> None:
    """Put ``finally`` where it is as legal: in its own place the compiler copies it, and copies within copies."""
    node.orelse += node.finalbody
    node.finalbody = []
    if not node.handlers:
        place = ast.copy_location(ast.Pass(), node)
        node.handlers.append(ast.copy_location(ast.ExceptHandler(type=None, name=None, body=[place]), node))
