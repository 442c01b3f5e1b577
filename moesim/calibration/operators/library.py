"""Libraries that an operator calls and that moesim does not bring."""

from __future__ import annotations

import importlib
import importlib.util

from moesim.calibration.measure.target import Target


def lacks(module: str, name: str, target: Target) -> str:
    """Why `name` of that module cannot be called here: no GPU, not installed, not importable, or another interface."""
    if target.device_class != "cuda":
        return f"{module} runs on GPUs only"
    if not importlib.util.find_spec(module.partition(".")[0]):
        return f"{module} is not installed"
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a library may raise whatever it likes where its kernels do not load
        return f"{module} cannot be imported: {(str(error).splitlines() or [type(error).__name__])[0]}"
    return "" if hasattr(found, name) else f"this {module} has no {name}"
