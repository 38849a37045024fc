"""Official NeWCRFs checkpoints: in, out, and what is refused."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.errors import CheckpointError, UsageError  # noqa: E402
from adubench.models.variants import VARIANTS  # noqa: E402
from adubench.models.weights import families  # noqa: E402
from adubench.models.weights.newcrfs import (  # noqa: E402
    detect,
    detect_variant,
    export_state,
    import_state,
    import_weights,
    official_name,
    our_name,
)
from adubench.models.zoo import build  # noqa: E402
from tests.models.newcrfs_golden import close, golden, redraw, weights  # noqa: E402

MINI = {"family": "newcrfs", "variant": "mini"}


@pytest.fixture
def official(tmp_path):
    """A checkpoint file as the reference writes it, with the golden network's weights; a function to change it."""

    def write(change=None):
        state = {f"module.{key}": value for key, value in weights(golden("mini_network"), buffers=True).items()}
        if change:
            change(state)
        path = tmp_path / "model-1000-best_silog_6.98"
        torch.save({"global_step": 1000, "model": state, "best_eval_steps": np.zeros(9, np.int32)}, path)
        return path

    return write


def test_the_golden_network_comes_through_an_official_file(official):
    arrays = golden("mini_network")
    imported = import_weights(official())
    assert imported.config == MINI | {"max_depth": 80.0, "in_channels": 3}
    assert any("16 index buffers" in note for note in imported.notes)
    network = build(imported.config).eval()
    network.load_state_dict(imported.state, strict=True)
    with torch.no_grad():
        for case in (0, 1):
            close(network(arrays[f"x{case}"]).depth, arrays[f"depth{case}"], 1e-3)


def test_auto_and_the_family_name_read_the_same(official):
    path = official()
    a, b = families.import_weights("auto", path), families.import_weights("newcrfs", path)
    assert a.config == b.config
    assert a.notes == b.notes
    assert families.detect(path) == "newcrfs"


def test_the_maximal_depth_follows_the_data_set_or_the_user(official):
    path = official()
    assert import_weights(path, dataset="nyu").config["max_depth"] == 10
    assert import_weights(path, max_depth=100.0).config["max_depth"] == 100
    with pytest.raises(UsageError, match="--max-depth"):
        families.import_weights("newcrfs", path, max_depth=-1.0)
    with pytest.raises(UsageError, match="data set"):
        families.import_weights("newcrfs", path, dataset="kity")
    with pytest.raises(UsageError, match="newcrfs"):
        families.import_weights("newcrf", path)


@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize(
    "variant",
    [
        "mini",
        "small",
        "tiny07",
        pytest.param("base07", marks=pytest.mark.slow),
        pytest.param("large07", marks=pytest.mark.slow),
    ],
)
def test_every_size_is_recognised_by_its_shapes(variant, channels):
    with torch.device("meta"):
        network = build({"family": "newcrfs", "variant": variant, "in_channels": channels})
    state = {official_name(key): value for key, value in network.state_dict().items()}
    assert detect_variant(state) == VARIANTS[variant]
    imported = import_state(state)
    assert imported.config["variant"] == variant
    assert imported.config["in_channels"] == channels


@pytest.mark.parametrize(("variant", "entries"), [("tiny07", 345), ("base07", 505), ("large07", 513)])
def test_an_export_has_the_official_number_of_entries(variant, entries):
    with torch.device("meta"):
        names = [official_name(key) for key in build({"family": "newcrfs", "variant": variant}).state_dict()]
    tables = sum(name.endswith("relative_position_bias_table") for name in names)
    assert len(set(names)) == len(names)
    assert len(names) + tables == entries


def test_widths_nobody_published_are_imported():
    widths = {"embed_dim": 12, "depths": [1, 2, 1, 3], "heads": [1, 2, 3, 6]}
    widths |= {"crf_widths": [4, 8, 16, 32], "crf_heads": [1, 2, 4, 8], "psp_width": 6}
    network = redraw(build({"family": "newcrfs", "variant": widths})).eval()
    imported = import_state(export_state(network)["model"])
    assert imported.config["variant"] == widths
    again = build(imported.config).eval()
    again.load_state_dict(imported.state)
    x = torch.randn(1, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again(x).depth, network(x).depth)


def test_export_is_the_inverse_of_import(tmp_path, official):
    imported = import_weights(official())
    network = build(imported.config | {"uncertainty": {}})
    network.load_state_dict(imported.state, strict=False)
    path = tmp_path / "back.ckpt"
    torch.save(export_state(network), path)
    exported, original = torch.load(path)["model"], torch.load(official(), weights_only=False)["model"]
    assert exported.keys() == original.keys()
    assert all(torch.equal(exported[key], original[key]) for key in original)


def test_names_translate_both_ways():
    for key in build(MINI).state_dict():
        assert our_name(official_name(key)) == key
    assert our_name("backbone.layers.1.downsample.norm.bias") == "encoder.backbone.layers_2.downsample.norm.bias"
    assert our_name("backbone.layers.1.blocks.0.norm1.bias") == "encoder.backbone.layers_1.blocks.0.norm1.bias"
    assert our_name("backbone.norm3.weight") == "encoder.norms.3.weight"


def test_a_teacher_with_two_encoders_has_no_official_form():
    with pytest.raises(CheckpointError, match="two encoders"):
        export_state(build(MINI | {"in_channels": 6, "fusion": "siamese_concat"}))


def _drop(key):
    return lambda state: state.pop(f"module.{key}")


def _put(key, value):
    return lambda state: state.update({f"module.{key}": value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop("crf2.norm_crf.bias"), r"lacks 'crf2\.norm_crf\.bias'"),
        (_drop("backbone.norm2.weight"), r"lacks 'backbone\.norm2\.weight'"),
        (_drop("crf3.norm_crf.weight"), r"'crf3\.norm_crf\.weight' is missing"),
        (_drop("disp_head1.conv1.weight"), "no NeWCRFs checkpoint"),
        (_put("extra.weight", torch.zeros(2)), r"besides 'extra\.weight'"),
        (_put("crf0.norm_crf.bias", torch.zeros(9)), r"another shape of 'crf0\.norm_crf\.bias'"),
        (_put("backbone.layers.0.blocks.1.attn.relative_position_index", torch.zeros(49, 49).long()), "another window"),
        (_put("backbone.layers.0.blocks.1.attn.relative_position_bias_table", torch.zeros(529, 1)), "another window"),
        (_put("backbone.patch_embed.proj.weight", torch.zeros(8, 4, 4, 4)), "3 or 6 channels"),
    ],
)
def test_incomplete_or_foreign_weights_are_named(official, change, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        import_weights(official(change))
    assert "\n" not in str(caught.value)
    assert "model-1000" in str(caught.value)


def test_checkpoints_of_nothing_known_are_named(tmp_path):
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"layer.weight": torch.zeros(3)}}, path)
    assert not detect({"layer.weight": torch.zeros(3)})
    assert not detect(tmp_path)
    with pytest.raises(CheckpointError, match="no NeWCRFs checkpoint"):
        import_weights(path)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        families.import_weights("newcrfs", tmp_path / "absent")
