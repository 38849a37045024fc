"""adubench: a depth map goes in, a number comes out that names its protocol.

The public names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from adubench.evaluators import protocols as protocols
    from adubench.evaluators.comparison import compare as compare
    from adubench.evaluators.evaluator import evaluate as evaluate
    from adubench.evaluators.result import load_result as load_result
    from adubench.evaluators.result import load_results as load_results
    from adubench.training.checkpoint import load_model as load_model

_PUBLIC = {
    "evaluate": ("adubench.evaluators.evaluator", "evaluate"),
    "compare": ("adubench.evaluators.comparison", "compare"),
    "load_result": ("adubench.evaluators.result", "load_result"),
    "load_model": ("adubench.training.checkpoint", "load_model"),
    "load_results": ("adubench.evaluators.result", "load_results"),
    "protocols": ("adubench.evaluators.protocols", None),
}

__all__ = ["__version__", "compare", "evaluate", "load_model", "load_result", "load_results", "protocols"]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'adubench' has no attribute '{name}'")
    module_name, attribute = _PUBLIC[name]
    module = import_module(module_name)
    return module if attribute is None else getattr(module, attribute)


def __dir__() -> list[str]:
    """List the lazily loaded names as well."""
    return sorted(__all__)
