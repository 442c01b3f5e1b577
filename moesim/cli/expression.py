"""The expressions of `--assert`: names of metrics and rungs, numbers, arithmetic, comparisons, and, or, not.

Written in Python's syntax and read by its parser, but evaluated here: only the forms below exist, so there is
nothing to escape from.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from moesim.errors import BadInput, TargetMissed, unknown_name

MAX_LENGTH: Final = 500
LARGEST: Final = 10**300  # of an integer: it has to be a float beside metrics
EXAMPLE: Final = "--assert 'step_time_s < 0.05 and exposed_comm_s / step_time_s < 0.2'"

_ARITHMETIC: Final[dict[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_COMPARISON: Final[dict[type, Callable[[Any, Any], bool]]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
_FORMS: Final = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, *_ARITHMETIC, ast.Compare,
    *_COMPARISON, ast.Name, ast.Load, ast.Constant,
)  # fmt: skip


class Expression:
    """A parsed `--assert`. Raises BadInput for anything but the forms above, before a simulation starts."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAX_LENGTH:
            raise BadInput(f"longer than {MAX_LENGTH} characters", where="--assert")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise BadInput(f"{text!r} is not an expression", where="--assert", way_out=EXAMPLE) from None
        for node in ast.walk(self._tree):
            _check_form(node)
        if not isinstance(self._tree, (ast.Compare, ast.BoolOp)) and not _negation(self._tree):
            raise BadInput(f"{text!r} compares nothing", where="--assert", way_out=EXAMPLE)

    def check(self, document: Mapping[str, Any]) -> TargetMissed | None:
        """None where it holds for the JSON document of a run, else the failure to raise. Raises BadInput for names."""
        values = {name: metric["value"] for name, metric in document["metrics"].items()} | dict(document["breakdown"])
        used = sorted({node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)})
        for name in used:
            _check_name(name, values)
        try:
            holds = bool(_value(self._tree, values))
        except ZeroDivisionError:
            raise BadInput(f"{self.text!r} divides by zero", where="--assert") from None
        except (OverflowError, RecursionError):
            raise BadInput(f"{self.text!r} has a number beyond all range", where="--assert", way_out=EXAMPLE) from None
        found = ", ".join(f"{name} = {values[name]:.6g}" for name in used)
        return None if holds else TargetMissed(f"{self.text} does not hold: {found}", where="--assert")


def _check_form(node: ast.AST) -> None:
    if not isinstance(node, _FORMS):
        kind = type(node).__name__
        raise BadInput(f"{kind} is not allowed", where="--assert", way_out=EXAMPLE)
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) > LARGEST:
        raise BadInput("a number is beyond all range", where="--assert", way_out=EXAMPLE)
    if isinstance(node, ast.Constant) and (isinstance(node.value, bool) or not isinstance(node.value, (int, float))):
        raise BadInput(f"{node.value!r} is not a number", where="--assert", way_out=EXAMPLE)


def _check_name(name: str, values: Mapping[str, float | None]) -> None:
    if name not in values:
        raise unknown_name("metric", name, values, where="--assert")
    if values[name] is None:
        raise BadInput(f"{name} was not played, it has no value", where="--assert", way_out="--set network.level=fluid")


def _negation(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _value(node: ast.AST, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not _value(inner, values)
        case ast.UnaryOp(operand=inner):
            return -_value(inner, values)
        case ast.BinOp(left=left, op=op, right=right):
            return _ARITHMETIC[type(op)](_value(left, values), _value(right, values))
        case ast.BoolOp(op=op, values=parts):
            join = all if isinstance(op, ast.And) else any
            return join(_value(part, values) for part in parts)
        case ast.Compare(left=first, ops=ops, comparators=rest):
            sides = [_value(side, values) for side in (first, *rest)]
            return all(_COMPARISON[type(op)](sides[i], sides[i + 1]) for i, op in enumerate(ops))
    raise BadInput(f"{type(node).__name__} is not allowed", where="--assert", way_out=EXAMPLE)
