"""Foreign checkpoints of AdaBins, BTS and the TIE-KD students: names, strictness, and the network they make."""

from collections import OrderedDict
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.errors import CheckpointError  # noqa: E402
from adubench.models import zoo  # noqa: E402
from adubench.models.weights import adabins, bts, families, tie_kd  # noqa: E402
from tests.models.tie_kd_golden import assert_near, fill, load  # noqa: E402


def shapes(config):
    """The state dictionary of a network that takes no memory: expanded zeros, which also make small files."""
    return dict(_shapes(tuple(config.items())))


@cache
def _shapes(items):
    config = dict(items)
    with torch.device("meta"):
        state = zoo.build(config).state_dict()
    return {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}


def official_adabins(n_bins=256):
    return shapes({"family": "adabins", "n_bins": n_bins})


def toolbox_adabins():
    state = shapes({"family": "adabins", "layout": "toolbox"})
    renamed = {adabins.own_to_toolbox(key): value for key, value in state.items()}
    return {**renamed, "decode_head.conv_depth.weight": torch.zeros(1, 128, 3, 3), "decode_head.conv_depth.bias": ONE}


def official_bts(encoder):
    state = shapes({"family": "bts", "encoder": encoder})
    if encoder.startswith("res"):
        state["encoder.base_model.fc.weight"], state["encoder.base_model.fc.bias"] = torch.zeros(2, 2048), ONE
    return state


def toolbox_bts():
    return {bts.own_to_toolbox(k): v for k, v in shapes({"family": "bts", "layout": "toolbox"}).items()}


def student(encoder, n_bins=257):
    state = shapes({"family": "densedepth", "encoder": encoder, "n_bins": n_bins})
    named = {tie_kd._reference_name(key, encoder): value for key, value in state.items()}
    named["decode_head.conv_depth.weight"], named["decode_head.conv_depth.bias"] = torch.zeros(1, 128, 3, 3), ONE
    if encoder != "mobilenetv2":
        for half in "AB":
            named[f"decode_head.upsample_custom2.conv{half}.conv.weight"] = torch.zeros(128, 128, 3, 3)
            named[f"decode_head.upsample_custom2.conv{half}.conv.bias"] = torch.zeros(128)
    return named


ONE = torch.zeros(1)


def module(state):
    return {f"module.{key}": value for key, value in state.items()}


def save(tmp_path, content):
    path = tmp_path / "foreign.pt"
    torch.save(content, path)
    return path


def assert_loads(imported):
    with torch.device("meta"):
        network = zoo.build(imported.config)
    network.load_state_dict(imported.state, strict=True, assign=True)
    assert all(value.is_contiguous() for value in imported.state.values())
    assert network.config == {**network.config, **imported.config}
    return network


@pytest.mark.parametrize(("prefix", "names"), [(module, "legacy"), pytest.param(dict, "new", marks=pytest.mark.slow)])
def test_official_adabins(tmp_path, prefix, names):
    state = official_adabins()
    assert len(state) == 973
    if names == "legacy":
        patch = "adaptive_bins_layer.patch_transformer"
        old = {
            "adaptive_bins_layer.conv3x3.weight": "adaptive_bins_layer.embedding_conv.weight",
            "adaptive_bins_layer.conv3x3.bias": "adaptive_bins_layer.embedding_conv.bias",
            f"{patch}.embedding_convPxP.weight": f"{patch}.embedding_encoder.weight",
            f"{patch}.embedding_convPxP.bias": f"{patch}.embedding_encoder.bias",
        }
        state = {old.get(key, key): value for key, value in state.items()}
        assert set(old.values()) < set(state)
    path = save(tmp_path, {"model": prefix(state), "optimizer": {"state": {}}, "epoch": 24})
    assert families.detect(path) == "adabins"
    imported = families.import_weights("auto", path)
    assert imported.config == {"family": "adabins", "layout": "official", "n_bins": 256, "max_depth": 80.0}
    assert_loads(imported)


@pytest.mark.slow
def test_adabins_bins_and_range_come_from_the_file_and_the_data_set(tmp_path):
    path = save(tmp_path, official_adabins(n_bins=64))
    assert families.import_weights("adabins", path, dataset="nyu").config["max_depth"] == 10
    imported = families.import_weights("adabins", path, max_depth=60.0, dataset="nyu")
    assert (imported.config["n_bins"], imported.config["max_depth"]) == (64, 60.0)


def test_toolbox_adabins(tmp_path):
    state = toolbox_adabins()
    for key in (
        "backbone.original_model.conv_stem.weight",
        "decode_head.conv_list.0.conv.weight",
        "decode_head.conv_list.1.convA.conv.weight",
        "decode_head.conv_list.4.convB.bn.running_var",
        "decode_head.decode_final_conv.bias",
        "decode_head.adaptive_bins_layer.regressor.4.weight",
        "decode_head.conv_out.0.bias",
    ):
        assert key in state
    assert "decode_head.conv_list.1.convA.conv.bias" not in state
    path = save(tmp_path, {"meta": {"epoch": 24}, "state_dict": state})
    imported = families.import_weights("auto", path)
    assert imported.config["layout"] == "toolbox"
    assert any("conv_depth" in note for note in imported.notes)
    assert_loads(imported)


OTHERS = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("densenet161", "resnet101", "resnext50", "resnext101", "densenet121")
]


@pytest.mark.parametrize("encoder", ["resnet50", *OTHERS])
def test_official_bts(tmp_path, encoder):
    content = {
        "global_step": 3,
        "model": module(official_bts(encoder)),
        "optimizer": {"state": {}},
        "best_eval_measures_lower_better": torch.zeros(6),
        "best_eval_steps": np.zeros(9, np.int32),
    }
    path = save(tmp_path, content)
    imported = families.import_weights("auto", path)
    assert imported.config == {
        "family": "bts",
        "layout": "official",
        "encoder": encoder,
        "width": 512,
        "max_depth": 80.0,
        "dataset": "kitti",
    }
    assert_loads(imported)


def test_densenet_names_have_no_features_in_them():
    state = official_bts("densenet161")
    assert "encoder.base_model.conv0.weight" in state
    assert "encoder.base_model.denseblock1.denselayer1.norm1.weight" in state
    assert "encoder.base_model.transition2.conv.weight" in state
    assert not any(".features." in key for key in state)


def test_toolbox_bts_has_no_focal_scaling(tmp_path):
    state = toolbox_bts()
    assert "backbone.layer4.2.conv3.weight" in state
    assert "decode_head.daspp_6.atrous_conv.first_bn.weight" in state
    assert "decode_head.conv_depth.bias" in state
    imported = families.import_weights("auto", save(tmp_path, {"state_dict": state, "meta": {}}))
    assert imported.config["layout"] == "toolbox"
    network = assert_loads(imported)
    assert not network.focal_scaling
    assert not network.input_rule.needs_focal


@pytest.mark.parametrize("encoder", ["mobilenetv2", "resnet18", "resnet50"])
def test_students(tmp_path, encoder):
    path = save(tmp_path, {"meta": {}, "state_dict": module(student(encoder)), "optimizer": {}})
    imported = families.import_weights("auto", path)
    assert imported.config == {
        "family": "densedepth",
        "encoder": encoder,
        "head": "dpm",
        "n_bins": 257,
        "max_depth": 80.0,
    }
    assert any("conv_depth" in note for note in imported.notes)
    assert_loads(imported)


@pytest.mark.parametrize("unused", [True, False])
def test_a_regression_student_is_told_by_its_stored_configuration(tmp_path, unused):
    state = student("resnet18")
    config = "model = dict(decode_head=dict(type='DenseDepthHead_base_custom_kd_resnet'))"
    if not unused:
        state = {key: value for key, value in state.items() if "conv_out" not in key}
        config = ""
    path = save(tmp_path, {"meta": {"config": config}, "state_dict": state})
    imported = families.import_weights("tie-kd", path)
    assert imported.config["head"] == "regression"
    assert_loads(imported)


@pytest.mark.parametrize(
    ("reference", "own"),
    [
        ("backbone.conv1.conv.weight", "encoder.conv_stem.weight"),
        ("backbone.conv1.bn.running_mean", "encoder.bn1.running_mean"),
        ("backbone.layer1.0.conv.0.conv.weight", "encoder.blocks.0.0.conv_dw.weight"),
        ("backbone.layer1.0.conv.1.bn.bias", "encoder.blocks.0.0.bn2.bias"),
        ("backbone.layer3.2.conv.0.conv.weight", "encoder.blocks.2.2.conv_pw.weight"),
        ("backbone.layer7.0.conv.1.conv.weight", "encoder.blocks.6.0.conv_dw.weight"),
        ("backbone.layer7.0.conv.2.bn.num_batches_tracked", "encoder.blocks.6.0.bn3.num_batches_tracked"),
        ("decode_head.conv_list.0.conv.bias", "decode_head.conv_list.0.conv.bias"),
    ],
)
def test_mobilenet_names(reference, own):
    assert tie_kd.mobilenet_to_own(reference) == own
    assert tie_kd.own_to_mobilenet(own) == reference


def test_an_imported_student_computes_what_the_reference_did(tmp_path):
    golden = load("students_full.npz")
    network = fill(zoo.build({"family": "densedepth", "encoder": "resnet18"}), int(golden["fill_seed"]))
    imported = families.import_weights("auto", save(tmp_path, tie_kd.export_state(network)))
    again = zoo.build(imported.config).eval()
    again.load_state_dict(imported.state, strict=True)
    with torch.no_grad():
        depth = again.infer(torch.from_numpy(golden["image"])).depth
    assert_near(depth, golden["resnet18_depth"], 1e-4)


@pytest.mark.parametrize(
    ("importer", "config"),
    [
        (adabins, {"family": "adabins"}),
        (adabins, {"family": "adabins", "layout": "toolbox"}),
        (bts, {"family": "bts", "encoder": "resnet50"}),
        (bts, {"family": "bts", "layout": "toolbox"}),
        (bts, {"family": "bts", "encoder": "densenet161"}),
        (tie_kd, {"family": "densedepth"}),
        (tie_kd, {"family": "densedepth", "encoder": "resnet18", "head": "regression"}),
    ],
)
def test_every_exported_name_comes_back(importer, config):
    with torch.device("meta"):
        network = zoo.build(config)
        state = network.state_dict()
    network.state_dict = lambda: {k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in state.items()}
    exported = importer.export_state(network)
    assert importer.detect(exported)
    found = importer.plain_state(exported)
    if importer is tie_kd:
        back = {tie_kd._own_name(key, network.config["encoder"]) for key in found}
    elif config.get("layout") == "toolbox":
        back = {importer.toolbox_to_own(key) for key in found}
    else:
        back = {importer.official_to_own(key) if importer is bts else importer.current_name(key) for key in found}
    assert back - {None} == set(state)


def test_counters_may_be_missing_and_half_precision_is_widened(tmp_path):
    state = {k: v for k, v in student("resnet18").items() if not k.endswith("num_batches_tracked")}
    state = {k: v.half() for k, v in state.items()}
    imported = families.import_weights("tie-kd", save(tmp_path, {"state_dict": state}))
    assert imported.state["encoder.bn1.num_batches_tracked"].dtype == torch.int64
    assert imported.state["encoder.bn1.weight"].dtype == torch.float32


def optimizer_state():
    entry = {"step": 3, "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    group = {"lr": 1e-4, "betas": (0.9, 0.99), "initial_lr": np.float64(1e-4), "params": [0]}
    return {"state": {0: entry}, "param_groups": [group]}


def wrapped(state, form):
    """A checkpoint as one of the programs would store it, and how it is saved."""
    meta = {
        "env_info": "sys.platform: linux",
        "config": "model = dict()",
        "epoch": 24,
        "CLASSES": None,
        "hook_msgs": {},
    }
    numbers = {"best": np.float32(0.06), "step": np.int64(9), "best_eval_steps": np.zeros(9, np.int32)}
    old = {"_use_new_zipfile_serialization": False}
    parameters = {k: torch.nn.Parameter(v, requires_grad=v.is_floating_point()) for k, v in state.items()}
    return {
        "bare": (state, {}),
        "before zip files": (state, old),
        "model": ({"model": state, "optimizer": optimizer_state(), "epoch": 24}, {}),
        "mm": ({"meta": meta, "state_dict": OrderedDict(state), "optimizer": optimizer_state()}, {}),
        "numpy numbers": ({"model": module(state), **numbers}, {}),
        "all of them, before zip files": ({"model": module(state), "optimizer": optimizer_state(), **numbers}, old),
        "parameters": ({"model": OrderedDict(parameters)}, {}),
    }[form]


@pytest.mark.parametrize(
    "form", ["bare", "before zip files", "model", "mm", "numpy numbers", "all of them, before zip files", "parameters"]
)
def test_every_way_of_storing_gives_the_same_weights(tmp_path, form):
    state = student("resnet18")
    state["backbone.bn1.running_var"] = torch.arange(64.0)
    content, options = wrapped(state, form)
    torch.save(content, tmp_path / "foreign.pt", **options)
    imported = families.import_weights("auto", tmp_path / "foreign.pt")
    assert imported.config["encoder"] == "resnet18"
    assert torch.equal(imported.state["encoder.bn1.running_var"], torch.arange(64.0))
    assert not any(value.requires_grad for value in imported.state.values())


@pytest.mark.parametrize(("n_bins", "data", "said"), [(49, "kitti", True), (49, "nyu", False), (257, "kitti", False),
                                                      (257, "nyu", True)])  # fmt: skip
def test_bins_of_the_other_data_set_are_said(tmp_path, n_bins, data, said):
    """The file does not store its range: with the wrong one every depth would be eight times too large or small."""
    imported = families.import_weights("tie-kd", save(tmp_path, student("resnet18", n_bins)), dataset=data)
    assert any("--dataset" in note for note in imported.notes) == said


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
@pytest.mark.parametrize(
    ("family", "make", "key"),
    [
        ("adabins", official_adabins, "decoder.conv3.bias"),
        ("adabins", toolbox_adabins, "decode_head.conv_list.2.convB.bn.weight"),
        ("bts", toolbox_bts, "decode_head.bn4_2.bias"),
        ("tie-kd", lambda: student("mobilenetv2"), "backbone.layer4.1.conv.0.bn.weight"),
    ],
)
def test_incomplete_files_are_refused_by_the_name_in_the_file(tmp_path, family, make, key, fault):
    state = dict(make())
    if fault == "missing":
        del state[key]
    elif fault == "unknown":
        key = f"{key}.extra"
        state[key] = ONE
    else:
        state[key] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
        families.import_weights(family, save(tmp_path, {"state_dict": state}))


@pytest.mark.parametrize("family", ["adabins", "bts", "tie-kd"])
def test_another_family_is_refused(tmp_path, family):
    others = {"adabins": lambda: official_bts("resnet50"), "bts": official_adabins, "tie-kd": toolbox_adabins}
    with pytest.raises(CheckpointError, match="expected a"):
        families.import_weights(family, save(tmp_path, others[family]()))


def test_an_unknown_bts_encoder_is_refused(tmp_path):
    state = {k: v for k, v in official_bts("resnet50").items() if "layer3.5" not in k}
    with pytest.raises(CheckpointError, match="none of ResNet-50"):
        families.import_weights("bts", save(tmp_path, state))
