"""The table of networks: complete, lazy, strict."""

import subprocess
import sys

import pytest

from adubench.errors import UsageError
from adubench.models.config import number, read_config
from adubench.models.weights.families import FAMILIES
from adubench.models.zoo import MODELS, build


def test_the_tables_cost_no_torch():
    code = (
        "import sys\nfrom adubench.models import zoo, cost, variants\nfrom adubench.models.weights import families\n"
        "print([m for m in ('torch', 'timm', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("family", MODELS)
def test_every_entry_says_what_it_is_and_can_be_imported(family):
    pytest.importorskip("torch")
    from importlib import import_module

    entry = MODELS[family]
    assert entry.family == family
    assert entry.about
    assert entry.source
    assert entry.status in ("trainable", "inference")
    module, function = entry.builder.split(":")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_importer_offers_both_functions(name):
    pytest.importorskip("torch")
    from importlib import import_module

    module = import_module(FAMILIES[name].partition(":")[0])
    assert callable(module.import_weights)
    assert callable(module.detect)


@pytest.mark.parametrize(
    ("config", "words"), [({}, "family"), ({"family": "newcrf"}, "newcrfs"), ({"family": 3}, "unknown model family")]
)
def test_an_unknown_family_is_named(config, words):
    with pytest.raises(UsageError, match=words):
        build(config)


def test_configurations_are_filled_and_checked():
    defaults = {"family": "x", "size": 3, "mode": "a"}
    assert read_config({"mode": "b"}, defaults, choices={"mode": ("a", "b")}) == {"family": "x", "size": 3, "mode": "b"}
    with pytest.raises(UsageError, match="did you mean 'size'"):
        read_config({"sise": 1}, defaults)
    with pytest.raises(UsageError, match="unknown value of 'mode'"):
        read_config({"mode": "c"}, defaults, choices={"mode": ("a", "b")})
    with pytest.raises(UsageError, match="takes 3, 6"):
        read_config({"size": True}, defaults, choices={"size": (3, 6)})


@pytest.mark.parametrize("value", ["3", None, True, float("nan"), float("inf"), 0])
def test_a_number_is_finite_and_inside_its_bound(value):
    assert number({"a": 2}, "a") == 2.0
    with pytest.raises(UsageError, match="'a' of the thing"):
        number({"a": value}, "a", above=0, where="thing")
