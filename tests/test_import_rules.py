"""The import rules, read from the import statements themselves: a part that reaches where it must not is a failure."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "adubench"

# part -> parts of ours it may import (besides itself and `errors`, which all may).
ALLOWED = {
    "io": set(),
    "datasets": {"io"},
    "models": set(),
    "distillation": {"models"},
    "evaluators": {"io"},
    "submissions": {"io", "evaluators"},
    "reports": {"evaluators", "io"},
    "training": {"io", "datasets", "models", "distillation", "evaluators", "submissions", "recipes"},
    "recipes": set(),
    "commands": {
        "io",
        "datasets",
        "models",
        "distillation",
        "evaluators",
        "submissions",
        "reports",
        "training",
        "recipes",
        "demo",
    },
    "demo": {"io", "datasets", "evaluators", "submissions", "reports"},
}
EXCEPTIONS = {("evaluators/evaluator.py", "datasets")}
NO_TORCH = {"io", "evaluators", "submissions", "reports", "recipes"}
HEAVY = {"torch", "torchvision", "timm", "cv2", "pandas", "matplotlib", "torchmetrics"}


def _files():
    return sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE)


def _imports(tree, top_level_only=False):
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            yield node.module
            if node.module == "adubench":
                yield from (f"adubench.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", _files(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_parts_import_only_what_they_may(path):
    relative = path.relative_to(PACKAGE)
    part = relative.parts[0]
    for name in _imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] == "adubench" and len(parts) > 1:
            target = parts[1]
            if target in (part, "errors", "__version__"):
                continue
            assert target in ALLOWED[part] or (relative.as_posix(), target) in EXCEPTIONS, (
                f"{relative} imports {name}; {part} may import {sorted(ALLOWED[part]) or 'nothing of ours'}"
            )
        if parts[0] == "torch":
            assert part not in NO_TORCH, f"{relative} imports torch"


@pytest.mark.parametrize("path", _files(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_heavy_packages_are_never_imported_at_module_level_outside_networks(path):
    relative = path.relative_to(PACKAGE)
    if relative.parts[0] in ("models", "distillation", "training"):
        pytest.skip("networks need torch")
    names = {name.split(".")[0] for name in _imports(ast.parse(path.read_text()), top_level_only=True)}
    assert not names & HEAVY


def test_the_rules_notice_a_violation():
    """The checker itself must be able to fail."""
    tree = ast.parse("def f():\n    from adubench.datasets import frames\n")
    assert "adubench.datasets" in set(_imports(tree))


FORBIDDEN_AT_START = ("torch", "torchvision", "timm", "scipy.stats", "matplotlib", "pandas", "cv2", "numba")


@pytest.mark.parametrize(
    ("arguments", "also_forbidden"),
    [
        (["--help"], ("numpy", "scipy", "h5py", "rich", "pydantic", "PIL")),
        (["--version"], ("numpy", "scipy", "h5py", "rich", "pydantic", "PIL")),
        (["protocols"], ("h5py", "PIL")),
        (["compare", "--help"], ("numpy",)),
        (["eval", "--help"], ("numpy",)),
        (["no-such-command"], ("numpy",)),
    ],
)
def test_start_up_imports_nothing_heavy(arguments, also_forbidden):
    code = (
        "import sys, json\nfrom adubench.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write('\\nMODULES ' + json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(ast.literal_eval(done.stderr.rsplit("MODULES ", 1)[1]))
    assert not modules & {*FORBIDDEN_AT_START, *also_forbidden}
