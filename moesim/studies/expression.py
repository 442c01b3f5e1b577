"""The expressions of `--assert` and of the gallery: names of metrics and rungs, numbers, arithmetic, comparisons, and,
or, not, abs, min, max. A name may have dots: `memory.expert_weights`, and in the gallery `variant.metric`.

Written in Python's syntax and read by its parser, but evaluated here: only the forms below exist, so there is
nothing to escape from.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
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
_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {"abs": abs, "min": min, "max": max}
_FORMS: Final = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, *_ARITHMETIC, ast.Compare,
    *_COMPARISON, ast.Name, ast.Load, ast.Constant, ast.Attribute, ast.Call,
)  # fmt: skip


class Expression:
    """One expression, at `where` for errors. Raises BadInput for anything but the forms above, before a simulation
    starts; a `quantity` need not compare. owners: what may stand before a dot.
    """

    def __init__(
        self, text: str, where: str = "--assert", *, quantity: bool = False, owners: Collection[str] = ("memory",)
    ) -> None:
        self.text, self._where = text, where
        if len(text) > MAX_LENGTH:
            raise BadInput(f"longer than {MAX_LENGTH} characters", where=where, way_out=EXAMPLE)
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise BadInput(f"{text!r} is not an expression", where=where, way_out=EXAMPLE) from None
        for node in ast.walk(self._tree):
            _check_form(node, where)
        if not quantity and not isinstance(self._tree, (ast.Compare, ast.BoolOp)) and not _negation(self._tree):
            raise BadInput(f"{text!r} compares nothing", where=where, way_out=EXAMPLE)
        for owner in (name.split(".", 1)[0] for name in self.names if "." in name):
            if owner not in owners:
                raise unknown_name("name before a dot", owner, owners, where=where)

    @property
    def names(self) -> list[str]:
        """Every metric that it reads, once."""
        return sorted(set(_names(self._tree)))

    def check(self, document: Mapping[str, Any]) -> TargetMissed | None:
        """None where it holds for the JSON document of a run, else the failure to raise. Raises BadInput for names."""
        values = values_of(document)
        if self.value(values):
            return None
        return TargetMissed(self.failure(values), where=self._where)

    def failure(self, values: Mapping[str, float | None]) -> str:
        """What is said where it does not hold, with the numbers."""
        return f"{self.text} does not hold: " + ", ".join(f"{name} = {values[name]:.6g}" for name in self.names)

    def value(self, values: Mapping[str, float | None]) -> Any:
        """Of the expression, a truth or a number. Raises BadInput for names that are not there."""
        for name in self.names:
            _check_name(name, values, self._where)
        try:
            return _value(self._tree, values)
        except ZeroDivisionError:
            raise BadInput(f"{self.text!r} divides by zero", where=self._where, way_out=EXAMPLE) from None
        except (OverflowError, RecursionError):
            raise BadInput(f"{self.text!r} has a number beyond all range", where=self._where, way_out=EXAMPLE) from None


def values_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """name -> number of the metrics and rungs of a JSON document."""
    return dict(document.get("breakdown", {})) | {name: one["value"] for name, one in document["metrics"].items()}


def _check_form(node: ast.AST, where: str) -> None:
    unknown = isinstance(node, ast.Call) and (_dotted(node.func) not in _FUNCTIONS or bool(node.keywords))
    if not isinstance(node, _FORMS) or unknown:
        kind = type(node).__name__
        raise BadInput(f"{kind} is not allowed", where=where, way_out=EXAMPLE)
    if isinstance(node, ast.Attribute) and not _dotted(node):
        raise BadInput("a dot stands between names only", where=where, way_out=EXAMPLE)
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) > LARGEST:
        raise BadInput("a number is beyond all range", where=where, way_out=EXAMPLE)
    if isinstance(node, ast.Constant) and (isinstance(node.value, bool) or not isinstance(node.value, (int, float))):
        raise BadInput(f"{node.value!r} is not a number", where=where, way_out=EXAMPLE)


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of a name with dots, "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    inner = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner and isinstance(node, ast.Attribute) else ""


def _names(node: ast.AST) -> list[str]:
    """Names of metrics: whole ones, and none that is called."""
    if name := _dotted(node):
        return [name]
    inside = node.args if isinstance(node, ast.Call) else list(ast.iter_child_nodes(node))
    return [name for child in inside for name in _names(child)]


def _check_name(name: str, values: Mapping[str, float | None], where: str) -> None:
    if name not in values:
        raise unknown_name("metric", name, values, where=where)
    if values[name] is None:
        raise BadInput(f"{name} was not played, it has no value", where=where, way_out="--set network.level=fluid")


def _negation(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _value(node: ast.AST, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name() | ast.Attribute():
            return values[_dotted(node)]
        case ast.Call(func=function, args=arguments):
            return _FUNCTIONS[_dotted(function)](*(_value(one, values) for one in arguments))
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
