"""TIE-KD, its baselines, AdaBins and BTS in the training loop: maps that do not fit, resuming, checkpoints."""

import json
import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from adubench.datasets import training_focal  # noqa: E402
from adubench.datasets.nyu import NyuWindow, part_root  # noqa: E402
from adubench.datasets.splits import load_split  # noqa: E402
from adubench.datasets.teacher_maps import (  # noqa: E402
    TeacherRecord,
    pack_teacher_maps,
    read_record,
    write_record,
    write_teacher_png,
)
from adubench.datasets.training_frames import training_frames  # noqa: E402
from adubench.errors import CheckpointError, DataError, UsageError  # noqa: E402
from adubench.models import densedepth, zoo  # noqa: E402
from adubench.recipes.recipe import load_recipe  # noqa: E402
from adubench.training import loop  # noqa: E402
from adubench.training.build import build_network, open_data  # noqa: E402
from adubench.training.checkpoint import load_network  # noqa: E402
from adubench.training.data import make_loader  # noqa: E402
from adubench.training.plan import plan_training  # noqa: E402
from adubench.training.run import train  # noqa: E402
from adubench.training.sampler import EpochSampler  # noqa: E402
from adubench.training.schedules import first_beta, lr_factor  # noqa: E402
from adubench.training.stage import check_same_data  # noqa: E402
from adubench.training.tie_kd_build import build_model_objective, tie_kd_config  # noqa: E402
from adubench.training.tie_kd_objectives import AdaBinsTraining, BTSTraining  # noqa: E402
from tests.nyu import nyu_tree  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread", "small_student")
QUICK = (
    "input.height=32",
    "input.width=64",
    "model.n_bins=17",
    "train.steps=3",
    "train.batch_size=2",
    "validate.split=null",
    "log.every=1",
)


@pytest.fixture
def small_student(monkeypatch):
    """ResNet-18 with a narrow decoder: the same code, a tenth of the time."""
    narrow = replace(densedepth.STUDENTS["resnet18"], widths=(128, 8, 8, 8, 8))
    monkeypatch.setitem(densedepth.STUDENTS, "resnet18", narrow)


@pytest.fixture
def student(maps):
    def make(*changes, path=maps):
        places = () if path is None else (f"teacher_maps.path={path}",)
        return load_recipe("demo-tie-kd", [*QUICK, *places, *changes])

    return make


def losses(folder):
    lines = [json.loads(line) for line in (folder / "student/log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "step"]


METHODS = {
    "tie-kd": (),
    "response-kd": ("method=response-kd", "model.head=regression", "response_kd.loss=ssim+mse"),
    "sparse-si": ("method=sparse-si", "model.head=regression"),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_train_and_their_checkpoints_are_plain_students(name, student, synth, tmp_path):
    recipe = student(*METHODS[name], "train.steps=2")
    (written,) = train(recipe, output=tmp_path, data_root=synth, device="cpu")
    steps = losses(tmp_path)
    assert len(steps) == 2
    assert {"tie-kd": {"l_dpm", "l_depth"}, "response-kd": set(), "sparse-si": {"n_valid"}}[name] <= steps[0].keys()
    network, info = load_network(written)
    assert zoo.build(network.config).state_dict().keys() == load_file(written).keys()
    assert network.config["head"] == ("dpm" if name == "tie-kd" else "regression")
    teacher = info.data.get("teacher_maps")
    assert teacher == (None if name == "sparse-si" else {
        "teacher": "ramp", "weights_sha256": "a" * 64, "max_depth": 80.0, "flip": "mean", "split": "synthdrive.train"
    })  # fmt: skip


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(student, synth, tmp_path, monkeypatch):
    recipe = student("checkpoint.every=1")
    (whole,) = train(recipe, output=tmp_path / "whole", data_root=synth, device="cpu")
    real = loop.Trainer._one_step

    def dying(self, model, optimizer, batch):
        if self.step == 2:
            raise KeyboardInterrupt
        return real(self, model, optimizer, batch)

    monkeypatch.setattr(loop.Trainer, "_one_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, output=tmp_path / "parts", data_root=synth, device="cpu")
    monkeypatch.setattr(loop.Trainer, "_one_step", real)
    (parts,) = train(recipe, output=tmp_path / "parts", data_root=synth, device="cpu", resume=True)
    left, right = load_file(whole), load_file(parts)
    assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.slow
def test_a_run_does_not_continue_with_another_teachers_maps(student, synth, maps, tmp_path):
    recipe = student("train.steps=1")
    train(recipe, output=tmp_path / "run", data_root=synth, device="cpu")
    shutil.copytree(maps, tmp_path / "other")
    write_record(tmp_path / "other", replace(read_record(maps), weights_sha256="b" * 64))
    other = student("train.steps=2", path=tmp_path / "other")
    folder = tmp_path / "run/student"
    run = json.loads((folder / "run.json").read_text()) | {"status": "stopped"}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "recipe.yaml").write_text((folder / "recipe.yaml").read_text().replace("steps: 1", "steps: 2"))
    with pytest.raises(DataError, match="cannot be continued"):
        train(other, output=tmp_path / "run", data_root=synth, device="cpu", resume=True)


def test_maps_changed_after_the_start_are_named(student, synth, maps, tmp_path):
    """The record is the same, a map is not; the whole training need not run for that."""
    shutil.copytree(maps, tmp_path / "maps")
    stage = SimpleNamespace(folder=tmp_path, data=open_data(student(path=tmp_path / "maps"), "student", synth))
    began = stage.data.fingerprint()
    check_same_data(stage, began)
    check_same_data(stage, {key: value for key, value in began.items() if key != "teacher_map_files"})  # older runs
    path = sorted((tmp_path / "maps").glob("*0000000006.png"))[0]
    depth = np.asarray(Image.open(path)).astype(np.float32) * np.float32(80 / 65535)
    write_teacher_png(tmp_path / "maps", path.name, depth[::-1], read_record(maps))
    stage.data = open_data(student(path=tmp_path / "maps"), "student", synth)
    assert stage.data.fingerprint()["fingerprint"] == began["fingerprint"]
    with pytest.raises(DataError, match=rf"teacher maps were changed since it began; {path.name} was written last"):
        check_same_data(stage, began)
    write_teacher_png(tmp_path / "maps", path.name, np.zeros_like(depth), read_record(maps))
    samples = stage.data.samples
    names = [frame.name for frame in samples.frames]
    assert "teaches nothing" in samples[0, names.index(next(n for n in names if n.endswith("0000000006")))].message


def broken(maps, folder, fault):
    shutil.copytree(maps, folder)
    record = read_record(maps)
    if fault == "missing":
        sorted(folder.glob("*0000000006.png"))[0].unlink()
    elif fault == "record":
        (folder / "teacher.json").unlink()
    elif fault == "cut":
        path = sorted(folder.glob("*0000000006.png"))[0]
        path.write_bytes(path.read_bytes()[:-9])
    elif fault == "size":
        depth = np.full((32, 64), 9.0, np.float32)
        write_teacher_png(folder, sorted(folder.glob("*0000000006.png"))[0].name, depth, record)
    elif fault == "unfinished":
        write_record(folder, record, finished=False)
    elif fault == "json":
        (folder / "teacher.json").write_text('{"teacher": "ramp", "max_de')
    else:
        changes = {
            "scale": {"max_depth": 10.0},
            "split": {"split": "synthdrive.test", "split_sha256": "0" * 64, "frames": 3},
            "teacher": {"weights_sha256": "b" * 64},
        }[fault]
        write_record(folder, replace(record, **changes))
    return folder


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", "1 of 6 frames have none: 2031_01_01_drive_0001_sync/image_02/0000000006"),
        ("scale", "wrong scale, their record says max_depth 10 m, the recipe 80 m"),
        ("split", "of another split, 'synthdrive.test' with 3 frames"),
        ("teacher", "of other weights"),
        ("record", "no teacher.json"),
        ("cut", "0000000006.png: truncated PNG"),
        ("size", "0000000006 .*: it has 32x64 pixels, expected 64x128"),
        ("unfinished", "not all written"),
        ("json", "teacher record .*damaged"),
        ("none", "give --teacher-maps MAPS"),
        ("nowhere", "teacher maps not found"),
    ],
)
def test_maps_that_do_not_fit_are_named_before_the_first_step(fault, words, student, synth, maps, tmp_path):
    if fault == "none":
        path = None
    elif fault == "nowhere":
        path = tmp_path / "nowhere"
    else:
        path = broken(maps, tmp_path / "maps", fault)
    recipe = student(f"teacher_maps.weights_sha256={'a' * 64}", path=path)
    with pytest.raises((DataError, UsageError), match=words):
        train(recipe, output=tmp_path / "run", data_root=synth, device="cpu")
    assert not (tmp_path / "run/student").exists()
    plan = plan_training(recipe, output=tmp_path / "run", data_root=synth, stages=("student",))
    if fault not in ("missing", "cut", "size"):  # a dry run opens the maps, it does not look at every one
        assert plan.problem
    assert plan.stages[0].frames == 6


def test_any_list_and_release_maps_need_no_matching_record(student, synth, maps, tmp_path):
    other = broken(maps, tmp_path / "split", "split")
    open_data(student("teacher_maps.any_list=true", path=other), "student", synth)
    bare = broken(maps, tmp_path / "bare", "record")
    data = open_data(student("teacher_maps.release=true", path=bare), "student", synth)
    assert data.fingerprint()["teacher_maps"]["teacher"] == "TIE-KD release"


def test_a_named_teacher_has_to_be_the_one_of_the_maps(student, synth, maps, tmp_path):
    from adubench.training.checkpoint import CheckpointInfo, save_checkpoint

    network = zoo.build({"family": "newcrfs", "variant": "mini", "in_channels": 6})
    info = CheckpointInfo(model=network.config, role="teacher", recipe=None, step=1, metrics={}, data={}, source={})
    save_checkpoint(tmp_path / "teacher.safetensors", network, info=info)
    with pytest.raises(DataError, match="of other weights"):
        train(
            student(), output=tmp_path / "run", data_root=synth, device="cpu", teacher=tmp_path / "teacher.safetensors"
        )
    with pytest.raises(CheckpointError):
        train(student(), output=tmp_path / "run", data_root=synth, device="cpu", teacher=maps / "teacher.json")


def test_packed_maps_train_the_same(student, synth, maps, tmp_path):
    record = read_record(maps)
    with pack_teacher_maps(tmp_path / "maps.h5", record) as packed:
        for path in maps.glob("*.png"):
            codes = np.asarray(Image.open(path)).astype(np.float32)
            packed.write(path.name, codes / np.float32(65535) * np.float32(80))
    one = open_data(student(), "student", synth).samples
    two = open_data(student(path=tmp_path / "maps.h5"), "student", synth).samples
    for a, b in zip(asdict(one.sample(0, 1)).values(), asdict(two.sample(0, 1)).values(), strict=True):
        np.testing.assert_allclose(a, b, atol=80 / 65535 * 1.01)


def test_presets_reach_loss_and_rotation(student):
    assert tie_kd_config(student()).sigma == 0.8
    released = tie_kd_config(student("tie_kd.preset=as-released"))
    assert (released.sigma, released.rotate_teacher) == (0.5, False)
    changed = tie_kd_config(load_recipe("tie-kd-nyu", ["tie_kd.alpha=1.0", "tie_kd.factor=1.0", "tie_kd.form=dense"]))
    assert (changed.sigma, changed.ignore_top_rows, changed.alpha, changed.factor) == (0.15, 0, 1.0, 1.0)
    assert tie_kd_config(load_recipe("tie-kd-kitti")).ignore_top_rows == 110
    assert tie_kd_config(load_recipe("tie-kd-resnet50-bts")).sigma == 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["model.family=densdepth"], "unknown model family for training 'densdepth': did you mean 'densedepth'"),
        (["model.encodr=resnet18"], "'encodr': did you mean 'encoder'"),
        (["model.encoder=resnet81"], "'resnet81': did you mean 'resnet18'"),
        (["model.max_depth=10"], "stands in data.max_depth"),
        (["model.pretrained=true"], "stands in model.init"),
        (["model.family=adabins"], "unknown key of the adabins network 'encoder'"),
        (["method=bts"], "bts trains a bts network, not densedepth"),
        (["model.head=regression"], "expected dpm, got regression"),
        (["tie_kd.alpha=1.5"], "expected a number <= 1"),
        (["tie_kd.ignore_top_rows=96"], "96 rows are all of a crop with 96 rows"),
        (["tie_kd.preset=as-release"], "did you mean 'as-released'"),
        (["response_kd.loss=l1"], "unknown value 'l1'"),
        (["stages=[teacher, student]"], "tie-kd has one stage"),
        (["input.mode=resize"], "expected crop"),
        (["train.momentum=[0.95, 0.85]"], "the lower one first"),
    ],
)
def test_faults_in_recipes_are_sentences(changes, words):
    with pytest.raises(UsageError) as caught:
        load_recipe("demo-tie-kd", changes)
    assert words in str(caught.value)
    assert str(caught.value).startswith("--set ") or "demo-tie-kd.yaml, line" in str(caught.value)


def test_a_method_with_a_network_of_its_own_needs_the_section():
    with pytest.raises(UsageError, match="tie-kd trains a network of section 'model'"):
        load_recipe("demo-tie-kd", ["model=null"])


def test_onecycle_with_momentum_is_torchs():
    train_section = load_recipe("adabins-kitti").train
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=train_section.lr)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=train_section.lr, total_steps=50, base_momentum=0.85, max_momentum=0.95, final_div_factor=100
    )
    for step in range(50):
        group = optimizer.param_groups[0]
        assert train_section.lr * lr_factor(train_section, step, 50, 10) == pytest.approx(group["lr"], rel=1e-9)
        assert first_beta(train_section, step, 50) == pytest.approx(group["betas"][0], rel=1e-9)
        if step < 49:
            optimizer.step()
            theirs.step()
    assert first_beta(load_recipe("demo-tie-kd").train, 5, 50) == 0.95


def test_encoder_weights_from_a_file(student, tmp_path):
    import timm

    torch.manual_seed(1)
    source = timm.create_model("resnet18")
    torch.save(source.state_dict(), tmp_path / "r18.pth")
    recipe = student("model.init=imagenet", f"model.weights={tmp_path / 'r18.pth'}")
    network = build_network(recipe, "student")
    assert torch.equal(network.encoder.state_dict()["layer4.1.conv2.weight"], source.layer4[1].conv2.weight)
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match="does not hold the encoder of densedepth resnet18"):
        build_network(student("model.init=imagenet", f"model.weights={tmp_path / 'half.pth'}"), "student")


@pytest.mark.slow
def test_a_student_continues_from_a_checkpoint_of_its_own_kind(student, synth, tmp_path):
    (written,) = train(student("train.steps=1"), output=tmp_path, data_root=synth, device="cpu")
    network = build_network(student(f"model.init=checkpoint:{written}"), "student")
    assert torch.equal(network.state_dict()["encoder.conv1.weight"], load_file(written)["encoder.conv1.weight"])
    with pytest.raises(CheckpointError, match="the recipe trains densedepth resnet18 dpm 9"):
        build_network(student(f"model.init=checkpoint:{written}", "model.n_bins=9"), "student")


def test_batch_norm_over_processes_reaches_timms_norms_with_activation():
    from copy import deepcopy

    from adubench.training.sync_batch_norm import GlobalBatchNorm2d, convert_batch_norm

    torch.manual_seed(0)
    plain = densedepth.student_encoder("mobilenetv2").blocks[1]
    twin = convert_batch_norm(deepcopy(plain))
    norms = [m for m in twin.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(m, GlobalBatchNorm2d) for m in norms)
    x = torch.randn(2, 16, 8, 8)
    for train_mode in (True, False):
        plain.train(train_mode)
        twin.train(train_mode)
        torch.testing.assert_close(twin(x), plain(x), rtol=1e-4, atol=1e-5)
    assert twin.state_dict().keys() == plain.state_dict().keys()


def test_nyu_trains_from_the_folder_or_a_list(tmp_path):
    root = nyu_tree(tmp_path / "nyu")
    assert [f.name for f in load_split("nyu_train", root).frames] == [
        "bath_0002/rgb_00000", "den_0001/rgb_00000", "den_0001/rgb_00001"
    ]  # fmt: skip
    assert [f.name for f in load_split("nyu", root).frames] == ["bath/rgb_00000"]
    assert part_root(root / "sync", "nyu_train") == root / "sync"
    whole = training_frames("nyu_train", root)
    assert (whole.dataset, len(whole), whole.frames[0].scale) == ("nyu", 3, 1000.0)
    listed = training_frames(str(root / "train.txt"), root)
    assert listed.names == ("den_0001/rgb_00000",)
    window = NyuWindow(whole.frames[1])
    assert window.image().shape == (427, 565, 3)
    assert window.codes().max() == 2000
    assert not window.stereo
    assert not window.kitti
    assert window.window is None
    with pytest.raises(UsageError, match="train on nyu_train"):
        training_frames("nyu", root)
    (root / "sync/den_0001/rgb_00001.jpg").unlink()
    with pytest.raises(DataError, match="den_0001/rgb_00001: the image does not exist; expected rgb_"):
        training_frames("nyu_train", root)


def test_nyu_samples_and_release_names_of_maps(tmp_path):
    root = nyu_tree(tmp_path / "nyu")
    record = TeacherRecord("any", 10.0, "unknown", "", 3, crop="none")
    for name in ("bath_0002/rgb_00000", "den_0001/rgb_00000", "den_0001/rgb_00001"):
        write_teacher_png(tmp_path / "maps", f"data/nyu/{name}.jpg", np.full((480, 640), 3.0, np.float32), record)
    recipe = load_recipe("tie-kd-nyu", [f"teacher_maps.path={tmp_path / 'maps'}", "teacher_maps.release=true"])
    sample = open_data(recipe, "student", root).samples.sample(0, 0)
    assert sample.image.shape == (3, 416, 544)
    assert sample.gt.max() <= 2.001
    assert sample.teacher[sample.teacher_mask].min() == pytest.approx(3.0, abs=2e-4)
    truth = open_data(load_recipe("bts-nyu"), "student", root)
    raw = truth.samples.sample(0, 0)
    assert raw.codes.shape == (416, 544)
    assert raw.codes.max() <= 2001
    assert truth.samples.focal is None


def test_predicting_a_list_of_nyu_images_for_teacher_maps(tmp_path):
    from adubench.training.prediction_inputs import list_split

    root = nyu_tree(tmp_path / "nyu")
    (job,) = list_split(str(root / "train.txt"), root, stereo=False)
    assert (job.name, job.image) == ("den_0001/rgb_00000", root / "sync/den_0001/rgb_00000.jpg")
    assert len(list_split("nyu_train", root, stereo=False)) == 3


BTS = ("input.height=64", "input.width=96", "data.train=synthdrive.train", "data.kb_crop=false", "model.width=128",
       "model.init=random", "validate.split=null", "train.steps=1", "train.batch_size=2", "train.workers=0",
       "log.every=1")  # fmt: skip


def test_bts_trains_with_focal_lengths(synth, tmp_path):
    recipe = load_recipe("bts-kitti", BTS)
    data = open_data(recipe, "student", synth)
    batch = next(iter(make_loader(data.samples, EpochSampler(len(data.samples), 0, 2), form="uint8+table")))
    known = {line.split()[1] for line in (synth / "2031_01_01/calib_cam_to_cam.txt").read_text().splitlines()
             if line.startswith("P_rect_02")}  # fmt: skip
    assert batch["focal"].tolist() == pytest.approx([float(value) for value in known] * 2)
    assert data.notes[-1].startswith("14 frames left out") or not data.remarks
    (written,) = train(recipe, output=tmp_path, data_root=synth, device="cpu")
    network, _ = load_network(written)
    assert network.family == "bts"
    stepped = losses(tmp_path)[0]
    assert stepped["n_valid"] > 0


def test_bts_scales_depth_by_the_focal_length_of_the_batch():
    network = zoo.build({"family": "bts", "width": 128})
    objective = BTSTraining(network, min_gt=1.0).eval()
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gt = torch.full((1, 1, 32, 32), 20.0)
    plain = objective({"image": image, "gt": gt}, 0)["loss"]
    scaled = objective({"image": image, "gt": gt, "focal": torch.tensor([721.5377])}, 0)["loss"]
    same = objective({"image": image, "gt": gt, "focal": torch.tensor([715.0873])}, 0)["loss"]
    assert plain.item() == pytest.approx(same.item(), rel=1e-5)
    assert plain.item() != pytest.approx(scaled.item(), rel=1e-5)


def test_frames_of_unknown_focal_length_are_said(tmp_path):
    root = nyu_tree(tmp_path / "nyu")
    found, notes = training_focal.focal_lengths(training_frames("nyu_train", root), root)
    assert set(found.values()) == {training_focal.DEFAULT_FOCAL}
    assert notes[0].startswith("3 frames without a known focal length (first bath_0002/rgb_00000)")
    found, notes = training_focal.focal_lengths(training_frames(str(root / "train.txt"), root), root)
    assert (found, notes) == ({"den_0001/rgb_00000": 518.8579}, ())


@pytest.mark.slow
def test_adabins_trains(tmp_path):
    from adubench.datasets.synthdrive.writer import write_dataset

    write_dataset(tmp_path / "synth", drives=4, frames=11, size=(352, 416))
    changes = ("input.height=352", "input.width=384", "data.train=synthdrive.train", "data.kb_crop=false",
               "model.init=random", "validate.split=null", "train.steps=1", "train.batch_size=2", "train.workers=0",
               "log.every=1")  # fmt: skip
    recipe = load_recipe("adabins-kitti", changes)
    (written,) = train(recipe, output=tmp_path / "run", data_root=tmp_path / "synth", device="cpu")
    network, _ = load_network(written)
    assert isinstance(network, zoo.build(network.config).__class__)
    stepped = losses(tmp_path / "run")[0]
    assert stepped["loss"] == pytest.approx(stepped["silog"] + 0.1 * stepped["chamfer"], rel=1e-5)
    assert AdaBinsTraining(network).min_depth == 0.001
    objective = build_model_objective(recipe, network)
    objective({"image": torch.randn(2, 3, 352, 384), "gt": torch.full((2, 1, 352, 384), 9.0)}, 0)["loss"].backward()
    idle = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, "several processes would wait for their gradients"
