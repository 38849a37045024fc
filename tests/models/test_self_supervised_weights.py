"""Official folders in, networks out, and back: strictly, with all their oddities."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from adubench.errors import CheckpointError  # noqa: E402
from adubench.models import zoo  # noqa: E402
from adubench.models.monodepth2 import PredictiveMask  # noqa: E402
from adubench.models.pose import build_pose  # noqa: E402
from adubench.models.resnet_encoder import CHANNELS  # noqa: E402
from adubench.models.weights.families import detect, import_weights  # noqa: E402
from adubench.models.weights.official_files import add_aliases  # noqa: E402
from adubench.models.weights.official_helpers import export_helpers, import_helpers, import_pose  # noqa: E402
from adubench.models.weights.official_networks import _ALIASES, export_folder  # noqa: E402
from tests.self_supervised import recipe  # noqa: E402

NETS = {
    "monodepth2": "monodepth2",
    "hr-depth": "hr_depth",
    "hr-depth-lite": "hr_depth_lite",
    "diffnet": "diffnet",
    "sub-depth": "sub_depth",
}
SIZE = {"height": 64, "width": 96, "use_stereo": False}


def official(family):
    """The contents of encoder.pth and depth.pth as the original programs write them."""
    encoder, depth = recipe(NETS[family], "encoder"), recipe(NETS[family], "depth")
    if family in _ALIASES:
        depth = add_aliases(depth, _ALIASES[family])
    return {**encoder, **SIZE}, depth


def write(folder, encoder, depth, **options):
    folder.mkdir(exist_ok=True)
    torch.save(encoder, folder / "encoder.pth", **options)
    torch.save(depth, folder / "depth.pth", **options)
    return folder


def export_pose(network):
    """The official files of a pose network."""
    return export_helpers({f"pose.{key}": value for key, value in network.state_dict().items()})


def rebuild(imported):
    network = zoo.build(imported.config).eval()
    network.load_state_dict(imported.state)
    return network


@pytest.mark.parametrize(
    "family",
    [
        "hr-depth-lite",
        *(pytest.param(family, marks=pytest.mark.slow) for family in NETS if family != "hr-depth-lite"),
    ],
)
def test_round_trip_is_exact_and_writes_what_official_loaders_demand(family, tmp_path):
    encoder, depth = official(family)
    folder = write(tmp_path / "w", encoder, depth)
    assert detect(folder) == family
    imported = import_weights("auto", folder)
    assert (imported.config["height"], imported.config["width"]) == (64, 96)
    files = export_folder(rebuild(imported))
    assert files["encoder"].keys() == encoder.keys()
    assert files["depth"].keys() == depth.keys()
    for key, value in encoder.items():
        if key in SIZE:
            assert files["encoder"][key] == value
        elif ".fc." in key and key.startswith("encoder.fc"):
            assert files["encoder"][key].shape == value.shape
            assert not files["encoder"][key].any()
        else:
            assert torch.equal(files["encoder"][key], value), key
    assert all(torch.equal(files["depth"][key], value) for key, value in depth.items())
    again = import_weights(family, write(tmp_path / "again", files["encoder"], files["depth"]))
    assert again.config == imported.config
    assert all(torch.equal(again.state[key], value) for key, value in imported.state.items())


def test_number_of_entries_of_the_official_files():
    counts = {family: tuple(len(part) for part in official(family)) for family in NETS}
    assert counts["monodepth2"] == (125, 28)
    assert counts["hr-depth"] == (125, 142)
    assert counts["diffnet"] == (1833, 56)


def test_old_serialisation_missing_counters_and_a_file_instead_of_the_folder(tmp_path):
    encoder, depth = official("monodepth2")
    encoder = {key: value for key, value in encoder.items() if not key.endswith("num_batches_tracked")}
    folder = write(tmp_path / "w", encoder, depth, _use_new_zipfile_serialization=False)
    for path in (folder, folder / "encoder.pth", folder / "depth.pth"):
        assert detect(path) == "monodepth2"
        imported = import_weights("monodepth2", path)
        assert torch.equal(imported.state["encoder.encoder.conv1.weight"], encoder["encoder.conv1.weight"])
    assert imported.state["encoder.encoder.bn1.num_batches_tracked"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("layers", [34, 50])
def test_depth_and_images_are_read_from_the_keys(layers, tmp_path):
    config = {"family": "monodepth2", "num_layers": layers, "input_images": 2, "scales": [0, 1], **SIZE}
    network = zoo.build(config)
    files = export_folder(network)
    imported = import_weights("auto", write(tmp_path / "w", files["encoder"], files["depth"]))
    assert imported.config == network.config
    assert files["encoder"]["encoder.fc.weight"].shape == (1000, 512 if layers == 34 else 2048)


@pytest.mark.parametrize(
    "base", ["hr-depth-lite", *(pytest.param(n, marks=pytest.mark.slow) for n in ("hr-depth", "diffnet"))]
)
def test_two_channels_per_head_make_any_base_sub_depth(base, tmp_path):
    network = zoo.build({"family": "sub-depth", "base": base, **SIZE})
    files = export_folder(network)
    assert files["depth"]["convs.dispConvScale0.conv.weight"].shape[0] == 2
    heads = [key for key in files["depth"] if key.startswith("decoder.") and key.count(".") == 3]
    assert sum(files["depth"][key].shape[0] == 2 for key in heads) >= 8  # the aliases of four weights and biases
    folder = write(tmp_path / "w", files["encoder"], files["depth"])
    for family in ("auto", base, "sub-depth"):
        imported = import_weights(family, folder)
        assert imported.config == network.config
        assert all(torch.equal(imported.state[key], value) for key, value in network.state_dict().items())
    assert "SUB-Depth" in imported.notes[0]
    again = export_folder(rebuild(imported))
    for name in ("encoder", "depth"):
        assert again[name].keys() == files[name].keys()
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(again[name][k])) for k, v in files[name].items())


def test_stereo_and_missing_sizes_are_said(tmp_path):
    encoder, depth = official("monodepth2")
    imported = import_weights("monodepth2", write(tmp_path / "s", {**encoder, "use_stereo": True}, depth))
    assert zoo.build(imported.config).depth_scale == 5.4
    assert "5.4" in imported.notes[0]
    bare = {key: value for key, value in encoder.items() if key not in SIZE}
    imported = import_weights("monodepth2", write(tmp_path / "b", bare, depth))
    assert (imported.config["height"], imported.config["width"]) == (192, 640)
    assert "192x640" in imported.notes[0]
    assert import_weights("monodepth2", tmp_path / "b", max_depth=80.0).config["max_depth"] == 80.0


def _without(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, d: (_without(e, "encoder.layer2.0.bn1.bias"), d), r"1 missing \(encoder.layer2.0.bn1.bias\)"),
        (lambda e, d: ({**e, "encoder.extra": torch.zeros(1)}, d), r"1 unexpected \(encoder.extra\)"),
        (lambda e, d: (e, {**d, "decoder.0.conv.conv.bias": torch.zeros(7)}), r"shape \(7,\), expected \(256,\)"),
        (lambda e, d: ({**e, "options": "x"}, d), "expected tensors only, but 'options' is str"),
        (lambda e, d: ({**e, "height": "tall"}, d), "not a number"),
        (lambda e, d: ({**e, "height": float("inf")}, d), "not a number"),
        (lambda e, d: ({**e, "width": 32 * 10**8}, d), r"encoder\.pth: network input .*must be at most 16384"),
        (lambda e, d: ({**e, "height": 200}, d), r"encoder\.pth: network input 200x96: .*multiples of 32"),
        (lambda e, d: (e, {**d, "decoder.0.conv.conv.bias": torch.zeros(256, dtype=torch.int64)}), "type torch.int64"),
        (lambda e, d: (e, torch.zeros(3)), "expected a state dictionary, got Tensor"),
        (lambda e, d: (e, {"weight": torch.zeros(3)}), "not the decoder of"),
    ],
)
def test_what_does_not_fit_is_named(change, message, tmp_path):
    folder = write(tmp_path / "w", *change(*official("monodepth2")))
    with pytest.raises(CheckpointError, match=message):
        import_weights("monodepth2", folder)


def test_another_family_and_missing_files_are_named(tmp_path):
    encoder, depth = official("hr-depth")
    folder = write(tmp_path / "w", encoder, depth)
    with pytest.raises(CheckpointError, match="expected a checkpoint of monodepth2, got one of hr-depth"):
        import_weights("monodepth2", folder)
    (folder / "depth.pth").unlink()
    for family in ("hr-depth", "auto"):
        with pytest.raises(CheckpointError, match=r"depth\.pth not found"):
            import_weights(family, folder)


@pytest.mark.parametrize(
    "config",
    [
        {},
        pytest.param({"input": "all"}, marks=pytest.mark.slow),
        pytest.param({"num_layers": 50}, marks=pytest.mark.slow),
        {"kind": "shared"},
        {"kind": "shared", "input": "all"},
        {"kind": "posecnn"},
        {"kind": "posecnn", "input": "all"},
    ],
    ids=str,
)
def test_pose_networks_round_trip(config, tmp_path):
    network = build_pose(config)
    for name, state in export_pose(network).items():
        torch.save(state, tmp_path / f"{name}.pth")
    again = import_pose(tmp_path)
    assert again.config == network.config
    assert all(torch.equal(again.state_dict()[key], value) for key, value in network.state_dict().items())


def test_the_official_pose_files_load(tmp_path):
    torch.save(recipe("monodepth2", "pose_encoder"), tmp_path / "pose_encoder.pth")
    torch.save(recipe("monodepth2", "pose"), tmp_path / "pose.pth")
    network = import_pose(tmp_path)
    assert set(export_pose(network)["pose_encoder"]) == set(recipe("monodepth2", "pose_encoder"))
    torch.save({"x": torch.zeros(1)}, tmp_path / "pose.pth")
    with pytest.raises(CheckpointError, match="not a pose network"):
        import_pose(tmp_path)


def test_a_helper_that_cannot_be_read_is_left_out_with_a_reason(tmp_path):
    """The depth network counts; what else lies in its folder may be of another program."""
    torch.save({"x": torch.zeros(1)}, tmp_path / "pose.pth")
    torch.save({}, tmp_path / "ph_uncert_enc.pth")
    state, notes = import_helpers(tmp_path)
    assert state == {}
    assert len(notes) == 2
    assert "not a pose network" in notes[0]
    assert "ph_uncert_dec.pth: is missing" in notes[1]
    (tmp_path / "empty").mkdir()
    assert import_helpers(tmp_path / "empty") == ({}, [])


@pytest.mark.parametrize(("sources", "scales"), [(2, (0, 1, 2, 3)), (3, (0, 2))])
def test_predictive_masks_round_trip(sources, scales, tmp_path):
    mask = PredictiveMask(CHANNELS[18], sources, scales)
    files = export_helpers({f"mask.{key}": value for key, value in mask.state_dict().items()})
    assert list(files) == ["predictive_mask"]
    assert files["predictive_mask"]["decoder.10.conv.weight"].shape == (sources, 16, 3, 3)
    torch.save(files["predictive_mask"], tmp_path / "predictive_mask.pth")
    state, notes = import_helpers(tmp_path)
    assert notes == []
    assert state.keys() == {f"mask.{key}" for key in mask.state_dict()}
    assert all(torch.equal(state[f"mask.{key}"], value) for key, value in mask.state_dict().items())
    torch.save({"decoder.0.conv.conv.weight": torch.zeros(1)}, tmp_path / "predictive_mask.pth")
    assert "not a decoder of predictive masks" in import_helpers(tmp_path)[1][0]


def test_the_official_uncertainty_files_load(tmp_path):
    names = ("ph_uncert_enc", "ph_uncert_dec")
    parts = {name: recipe("sub_depth", name) for name in names}
    for name, part in parts.items():
        torch.save(part, tmp_path / f"{name}.pth")
    state, notes = import_helpers(tmp_path)
    assert notes == []
    files = export_helpers(state)
    for name in names:
        assert files[name].keys() == parts[name].keys()
        same = {key for key, value in parts[name].items() if torch.equal(files[name][key], value)}
        assert set(parts[name]) - same <= {"encoder.fc.weight", "encoder.fc.bias"}


def test_data_parallel_names_and_absent_aliases(tmp_path):
    encoder, depth = official("hr-depth-lite")
    plain = import_weights("auto", write(tmp_path / "a", encoder, depth))
    encoder = {key if key in SIZE else f"module.{key}": value for key, value in encoder.items()}
    depth = {f"module.{key}": value for key, value in depth.items() if key.startswith("convs.")}
    other = import_weights("auto", write(tmp_path / "b", encoder, depth))
    assert other.config == plain.config
    assert all(torch.equal(other.state[key], value) for key, value in plain.state.items())


def test_the_folder_of_a_run_means_its_only_checkpoint(tmp_path):
    encoder, depth = official("hr-depth-lite")
    models = tmp_path / "lite" / "models"
    models.mkdir(parents=True)
    write(models / "weights_9", encoder, depth)
    for path in (tmp_path / "lite", models):
        assert detect(path) == "hr-depth-lite"
        assert import_weights("auto", path).config["family"] == "hr-depth-lite"
    write(models / "weights_19", encoder, depth)
    with pytest.raises(CheckpointError, match=r"holds 2 checkpoints; give one of them, e\.g\. .*weights_19\."):
        import_weights("auto", tmp_path / "lite")


@pytest.mark.parametrize(
    "extras",
    [
        {"height": np.int64(64), "width": np.int32(96), "use_stereo": np.bool_(True)},
        {"height": torch.tensor(64), "width": torch.tensor(96), "use_stereo": torch.tensor(True)},
        {"height": 64.0, "width": "96", "use_stereo": 1},
    ],
    ids=["numpy", "tensor", "text"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_sizes_come_as_any_kind_of_number(extras, zipped, tmp_path):
    encoder, depth = official("hr-depth-lite")
    folder = write(tmp_path / "w", {**encoder, **extras}, depth, _use_new_zipfile_serialization=zipped)
    config = import_weights("auto", folder / "encoder.pth").config
    assert (config["height"], config["width"], config["use_stereo"]) == (64, 96, True)
