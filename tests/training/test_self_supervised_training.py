"""Self-supervised trainings and SUB-Depth from recipe to checkpoint: steps, states, teachers, faults."""

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from safetensors.torch import load_file  # noqa: E402

from adubench.errors import AdubenchError, CheckpointError, DataError, UsageError  # noqa: E402
from adubench.models import zoo  # noqa: E402
from adubench.recipes.recipe import load_recipe  # noqa: E402
from adubench.training import loop, run_folder  # noqa: E402
from adubench.training.build import build_network, build_optimizer, network_config, stage_objective  # noqa: E402
from adubench.training.checkpoint import CheckpointInfo, load_network, save_checkpoint  # noqa: E402
from adubench.training.objectives import build_objective  # noqa: E402
from adubench.training.run import train  # noqa: E402
from adubench.training.self_supervised_build import find_triplets  # noqa: E402
from adubench.training.state import load_state  # noqa: E402
from adubench.training.triplet_data import collate_triplets  # noqa: E402
from tests.self_supervised import DRIVE, write_drive  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = (
    "self_supervised.family=hr-depth-lite",
    "self_supervised.pose_model_type=posecnn",
    "self_supervised.frame_ids=[0,-1,1]",
    "self_supervised.use_stereo=false",
    "self_supervised.min_depth=0.1",
    "self_supervised.max_depth=100.0",
    "self_supervised.height=64",
    "self_supervised.width=64",
    "train.batch_size=2",
    "train.steps=2",
    "validate.split=null",
    "log.every=1",
)
# The photometric uncertainty needs a ResNet, the weighted form does not.
WEIGHTED = ("sub_depth.loss_mode=weighted", "sub_depth.w_pho=0.6", "sub_depth.w_reg=0.4")


def plain(*changes):
    return load_recipe("demo-monodepth2", [*TINY, *changes])


def distilled(*changes):
    return load_recipe("demo-sub-depth", [*TINY, *changes])


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """A KITTI drive of 6 frames, both cameras, and the list of its middle frames."""
    root = tmp_path_factory.mktemp("kitti")
    write_drive(root)
    write_list(root)
    return root


def write_list(root, frames=range(1, 5)):
    (root / "list.txt").write_text("".join(f"{DRIVE[:10]}/{DRIVE}_sync {frame} l\n" for frame in frames))


def kitti(root, *changes):
    return plain(f"data.train={root / 'list.txt'}", "self_supervised.per_drive_intrinsics=false", *changes)


def batch_of(recipe, root, count=2, epoch=0):
    samples = find_triplets(recipe, root).samples
    return collate_triplets([samples[epoch, k] for k in range(count)])


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Steps ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("self_supervised.use_stereo=true", "self_supervised.frame_ids=[0]"),
        ("self_supervised.v1_multiscale=true", "self_supervised.use_stereo=true", "self_supervised.no_ssim=true"),
        ("self_supervised.avg_reprojection=true", "self_supervised.pose_model_input=all"),
        pytest.param(("self_supervised.pose_model_type=separate_resnet",), marks=pytest.mark.slow),
        pytest.param(
            ("self_supervised.family=monodepth2", "self_supervised.pose_model_type=shared"), marks=pytest.mark.slow
        ),
        pytest.param(
            ("self_supervised.family=monodepth2", "self_supervised.automask=false",
             "self_supervised.predictive_mask=true", "self_supervised.scales=[0,2]"),
            marks=pytest.mark.slow,
        ),
        pytest.param(("self_supervised.family=hr-depth",), marks=pytest.mark.slow),
        pytest.param(("self_supervised.family=diffnet",), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_every_trained_weight_gets_a_gradient(drive, changes):
    """Several processes wait for the gradients of all parameters, so none may be without."""
    recipe = kitti(drive, *changes)
    objective = stage_objective(recipe, "student", None).train()
    parts = objective(batch_of(recipe, drive), 0)
    parts["loss"].backward()
    assert torch.isfinite(parts["loss"])
    without = [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert len(build_optimizer(objective, recipe.train).param_groups) == 1


def test_the_noise_belongs_to_seed_step_and_frames(drive):
    recipe = kitti(drive, "self_supervised.noise_std=0.1")
    objective = stage_objective(recipe, "student", None).eval()
    batch = batch_of(recipe, drive)
    first = objective(batch, 3)["loss"]
    torch.rand(5)
    assert torch.equal(objective(batch, 3)["loss"], first)
    assert not torch.equal(objective(batch, 4)["loss"], first)


def test_fixed_weights_1_and_0_are_plain_training(drive):
    weighted = distilled(f"data.train={drive / 'list.txt'}", "self_supervised.per_drive_intrinsics=false", *WEIGHTED)
    teacher = build_network(weighted, "teacher")
    student = stage_objective(weighted, "student", teacher).train()
    alone = stage_objective(kitti(drive), "student", None).train()
    student.config = type(student.config)(loss_mode="weighted", w_pho=1.0, w_reg=0.0)
    alone.load_state_dict({k: v for k, v in student.state_dict().items() if k != "_extra_state"})
    batch = batch_of(weighted, drive)
    assert student(batch, 0)["loss"].item() == pytest.approx(alone(batch, 0)["loss"].item(), rel=1e-6)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_teacher_learns_statistics_in_train_mode_only(drive, mode):
    recipe = distilled(
        f"data.train={drive / 'list.txt'}", "self_supervised.per_drive_intrinsics=false", *WEIGHTED,
        f"sub_depth.teacher_mode={mode}",
    )  # fmt: skip
    teacher = build_network(recipe, "teacher")
    before = {name: value.clone() for name, value in teacher.named_buffers()}
    objective = stage_objective(recipe, "student", teacher)
    objective.train()
    objective(batch_of(recipe, drive), 0)["loss"].backward()
    assert same(before, dict(teacher.named_buffers())) == (mode == "eval")
    assert all(p.grad is None for p in teacher.parameters())
    stored = objective.state_dict()["_extra_state"]
    assert bool(stored) == (mode == "train")
    objective.load_state_dict(objective.state_dict() | {"_extra_state": before if stored else {}})
    assert same(before, dict(teacher.named_buffers()))


@pytest.mark.slow
@pytest.mark.parametrize("system", ["monodepth2", "sub_depth_teacher_train_mode", "sub_depth_teacher_eval_mode"])
def test_the_objective_has_the_losses_of_the_original_trainers(system):
    """One step of full ResNet-18 systems, from 8-bit images of a batch to the loss."""
    from tests.self_supervised import DATA, values

    expected = values("training_step_values")[system]["steps"][0]
    objective = original_system(system, values("training_step_values")["weight_seeds"])
    with np.load(DATA / "training_step_inputs.npz") as file:
        batch = {f"colour/0/{s}": channels_last(file[f"color_0_{s}"]) for s in range(4)}
        for source in (0, -1, 1):
            batch[f"colour/{source}/0"] = batch[f"augmented/{source}"] = channels_last(file[f"color_{source}_0"])
        batch |= {"K/0": torch.from_numpy(file["K_0"]), "inverse_k/0": torch.from_numpy(file["inv_K_0"])}
    batch["frames"] = ["one", "two"]
    parts = objective.train()(batch, 0)
    assert parts["loss"].item() == pytest.approx(expected["loss"], abs=2e-5)


def channels_last(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 2, 3, 1)))


def original_system(system, seeds):
    from tests.self_supervised import recipe as draw
    from tests.self_supervised import without_classifier

    def fill(module, net, part, key=None):
        module.load_state_dict(without_classifier(draw(net, part, seed=seeds[key or part])))

    changes = ("self_supervised.init=random", "self_supervised.noise_std=0", "self_supervised.height=64",
               "self_supervised.width=96")  # fmt: skip
    if system == "monodepth2":
        objective = stage_objective(load_recipe("monodepth2-m", changes), "student", None)
    else:
        mode = system.split("_")[3]
        released = load_recipe("sub-depth-monodepth2-as-released", [*changes, f"sub_depth.teacher_mode={mode}"])
        teacher = build_network(released, "teacher")
        fill(teacher.encoder, "monodepth2", "encoder", "encoder_teacher")
        fill(teacher.depth, "monodepth2", "depth", "depth_teacher")
        objective = stage_objective(released, "student", teacher)
        fill(objective.extras.uncertainty.ph_uncert_enc, "sub_depth", "ph_uncert_enc")
        fill(objective.extras.uncertainty.ph_uncert_dec, "sub_depth", "ph_uncert_dec")
    fill(objective.network.encoder, "monodepth2", "encoder")
    head = ("monodepth2", "depth") if system == "monodepth2" else ("sub_depth", "depth", "depth_v2")
    fill(objective.network.depth, *head)
    fill(objective.extras.pose.pose_encoder, "monodepth2", "pose_encoder")
    fill(objective.extras.pose.pose, "monodepth2", "pose")
    return objective


# Runs ----------------------------------------------------------------------------------------------------------------


def test_two_steps_on_synthdrive_leave_a_depth_network_and_a_pose_network(synth, tmp_path):
    (path,) = train(plain(), output=tmp_path, data_root=synth, device="cpu")
    network, info = load_network(path)
    assert (network.family, info.step, info.data["ground_truth"]) == ("hr-depth-lite", 2, "none")
    assert info.recipe["method"] == "self-supervised"
    pose = load_file(tmp_path / "student" / run_folder.POSE)
    assert {key.split(".")[0] for key in pose} == {"pose"}
    lines = [json.loads(line) for line in (tmp_path / "student/log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    assert [line["step"] for line in steps] == [1, 2]
    assert all({"loss", "photometric", "regularisation", "unmasked"} <= line.keys() for line in steps)


def test_an_interrupted_run_ends_at_the_same_weights_and_statistics(synth, tmp_path, monkeypatch):
    """In the middle of an epoch, with a teacher whose statistics drift, with tie-breaking noise."""
    changes = (*WEIGHTED, "sub_depth.teacher_mode=train", "train.steps=4", "checkpoint.every=1", "checkpoint.keep=9")
    recipe = distilled(*changes)
    teacher = tmp_path / "teacher.safetensors"
    network = build_network(recipe, "teacher")
    save_checkpoint(teacher, network, info=CheckpointInfo(model=network.config, role="teacher"))
    whole = tmp_path / "whole"
    train(recipe, output=whole, data_root=synth, device="cpu", teacher=teacher)
    real = loop.Trainer._one_step

    class Killed(BaseException):
        """Stands for the end of the process."""

    def dying(self, model, optimizer, batch):
        if self.step == 2:
            raise Killed
        return real(self, model, optimizer, batch)

    monkeypatch.setattr(loop.Trainer, "_one_step", dying)
    parts = tmp_path / "parts"
    with pytest.raises(Killed):
        train(recipe, output=parts, data_root=synth, device="cpu", teacher=teacher)
    monkeypatch.setattr(loop.Trainer, "_one_step", real)
    train(recipe, output=parts, data_root=synth, device="cpu", teacher=teacher, resume=True)
    for name in (run_folder.LAST, run_folder.POSE):
        assert same(load_file(whole / "student" / name), load_file(parts / "student" / name)), name
    one, other = (load_state(folder / "student")["modules"]["_extra_state"] for folder in (whole, parts))
    assert one
    assert same(one, other)


@pytest.mark.slow
def test_sub_depth_from_teacher_to_official_folder(synth, tmp_path):
    """Both stages with uncertainty; the student's checkpoint and its helpers become the files of the original."""
    from adubench.models.weights.official_helpers import import_pose
    from adubench.training.weight_transfer import export_official, import_official

    changes = ("self_supervised.family=monodepth2", "self_supervised.pose_model_type=separate_resnet")
    teacher, student = train(distilled(*changes), output=tmp_path / "run", data_root=synth, device="cpu")
    assert load_network(teacher)[0].family == "monodepth2"
    network, info = load_network(student)
    assert network.config["base"] == "monodepth2"
    assert info.source["teacher_sha256"]
    files = export_official(student, tmp_path / "weights_0", family="sub-depth")
    names = {"encoder", "depth", "pose_encoder", "pose", "ph_uncert_enc", "ph_uncert_dec"}
    assert {file.stem for file in files} == names
    again = import_official("auto", tmp_path / "weights_0", tmp_path / "again.safetensors")
    assert again.family == "sub-depth"
    assert same(load_file(student), load_file(tmp_path / "again.safetensors"))
    pose = {f"pose.{k}": v for k, v in import_pose(tmp_path / "weights_0").state_dict().items()}
    stored = load_file(tmp_path / "run/student" / run_folder.POSE)
    assert same(pose, {k: v for k, v in stored.items() if k.startswith("pose.")})
    # A second training may start from both.
    start = distilled(
        *changes, "method=self-supervised", "stages=[student]", f"self_supervised.init=checkpoint:{teacher}"
    )
    objective = stage_objective(start, "student", None)
    assert same(load_file(teacher), objective.network.state_dict())


def test_training_goes_on_from_an_official_folder_with_its_pose_network(drive, tmp_path):
    """As at larger sizes: five epochs from the weights of the smaller ones."""
    from adubench.models.weights.official_helpers import export_helpers
    from adubench.models.weights.official_networks import export_folder
    from adubench.training.weight_transfer import import_official

    source = stage_objective(kitti(drive), "student", None)
    helpers = export_helpers(source.extras.state_dict())
    for name, part in (export_folder(source.network) | helpers).items():
        torch.save(part, tmp_path / f"{name}.pth")
    path = tmp_path / "ours.safetensors"
    import_official("auto", tmp_path, path)
    init = f"self_supervised.init=checkpoint:{path}"
    start = stage_objective(kitti(drive, init, "self_supervised.width=96"), "student", None)
    assert same(start.network.state_dict(), source.network.state_dict())
    assert same(start.extras.state_dict(), source.extras.state_dict())
    with pytest.raises(CheckpointError, match="pose network of another recipe"):
        stage_objective(kitti(drive, init, "self_supervised.pose_model_input=all"), "student", None)
    (tmp_path / "ours-pose.safetensors").unlink()
    with pytest.raises(CheckpointError, match="pose_init to imagenet or random"):
        stage_objective(kitti(drive, init), "student", None)


def test_milestones_and_imported_checkpoints_have_a_pose_network_of_their_own(tmp_path):
    from adubench.training.self_supervised_build import helpers_file

    shared = tmp_path / run_folder.POSE
    network, beside = run_folder.milestone_files(tmp_path, 10)
    imported = tmp_path / "md2.safetensors"
    assert {helpers_file(path) for path in (network, imported, tmp_path / run_folder.LAST)} == {shared}
    for path in (beside, tmp_path / "md2-pose.safetensors"):
        path.touch()
    assert helpers_file(network) == beside
    assert helpers_file(imported) == tmp_path / "md2-pose.safetensors"
    assert helpers_file(tmp_path / run_folder.LAST) == shared


# Faults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("self_supervised.max_depth=80", r"its max_depth is 100.0, the student's is 80.0"),
        ("self_supervised.width=96", r"its input width is 64, the student's is 96"),
        ("self_supervised.family=monodepth2", r"its family is hr-depth-lite, the student's is monodepth2"),
    ],
)
def test_a_teacher_of_another_kind_is_refused_before_the_first_step(synth, tmp_path, change, words):
    network = build_network(plain(), "student")
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(path, network, info=CheckpointInfo(model=network.config, role="teacher"))
    with pytest.raises(CheckpointError, match=words):
        train(distilled(*WEIGHTED, change), output=tmp_path / "run", data_root=synth, device="cpu", teacher=path)
    assert not (tmp_path / "run/student").exists()


def test_a_teacher_of_several_images_is_refused():
    from types import SimpleNamespace

    from adubench.training.self_supervised_build import plain_config
    from adubench.training.self_supervised_objectives import check_self_supervised_teacher

    expected = plain_config(load_recipe("sub-depth-monodepth2"))
    check_self_supervised_teacher(expected, SimpleNamespace(config=expected), "md2.safetensors")
    teacher = SimpleNamespace(config=expected | {"input_images": 3})
    with pytest.raises(CheckpointError, match=r"md2.safetensors: its number of input images is 3, the student's is 1"):
        check_self_supervised_teacher(expected, teacher, "md2.safetensors")


def test_a_student_is_no_teacher():
    student = zoo.build({"family": "sub-depth", "base": "hr-depth-lite", "height": 64, "width": 64})
    with pytest.raises(CheckpointError, match="SUB-Depth student with two channels per head"):
        stage_objective(distilled(*WEIGHTED), "student", student)


def test_the_student_may_start_as_its_teacher():
    recipe = distilled("sub_depth.student_init=teacher")
    teacher = build_network(recipe, "teacher")
    student = build_network(recipe, "student", teacher)
    own, theirs = student.state_dict(), teacher.state_dict()
    heads = [key for key, value in own.items() if value.shape != theirs[key].shape]
    assert len(heads) == 8
    assert all(torch.equal(own[k][:1], theirs[k]) for k in heads)
    assert all(torch.equal(own[k], theirs[k]) for k in own if k not in heads)
    with pytest.raises(UsageError, match="student_init=teacher needs a teacher"):
        build_network(recipe, "student")


def test_a_student_without_its_teacher_is_refused():
    with pytest.raises(UsageError, match="its student needs a teacher"):
        build_objective(distilled(), "student", build_network(distilled(), "student"), None)


def broken(root, tmp_path, **fault):
    """Copy the drive without an image, or with a standing camera."""
    target = tmp_path / "kitti"
    if fault.get("still"):
        write_drive(target, move=0)
    else:
        shutil.copytree(root, target)
        (target / DRIVE[:10] / f"{DRIVE}_sync" / fault["without"]).unlink()
    write_list(target)
    return target


@pytest.mark.parametrize(
    ("fault", "changes", "words"),
    [
        ({"without": "image_02/data/0000000003.png"}, (), r"1 of 4 frames not on disk, first .*0000000003"),
        (
            {"without": "image_03/data/0000000002.png"},
            ("self_supervised.use_stereo=true",),
            r"image_02/0000000002: its stereo image .*image_03/0000000002 is missing",
        ),
        ({"still": True}, (), rf"the camera stands still in {DRIVE} .*Leave these drives out"),
    ],
)
def test_missing_images_and_standing_cameras_are_named(drive, tmp_path, fault, changes, words):
    root = broken(drive, tmp_path, **fault)
    with pytest.raises(DataError, match=words):
        train(kitti(root, *changes), output=tmp_path / "run", data_root=root, device="cpu")
    assert not (tmp_path / "run/student").exists()


def test_a_gap_between_neighbours_is_an_error_and_the_end_of_a_drive_is_none(drive, tmp_path):
    root = broken(drive, tmp_path, without="image_02/data/0000000003.png")
    write_list(root, [1, 2])
    with pytest.raises(DataError, match=r"image_02/0000000002: its neighbour \+1 .*0000000003 is missing"):
        find_triplets(kitti(root), root)
    write_list(drive, range(6))
    try:
        found = find_triplets(kitti(drive), drive)
    finally:
        write_list(drive)
    assert len(found) == 4
    assert found.listed == 6
    assert "2 frames left out: at the end of a drive" in found.notes[-1]


def test_a_standing_camera_may_be_kept_and_stereo_alone_does_not_care(drive, tmp_path):
    root = broken(drive, tmp_path, still=True)
    assert len(find_triplets(kitti(root, "self_supervised.check_motion=false"), root)) == 4
    stereo = ("self_supervised.frame_ids=[0]", "self_supervised.use_stereo=true")
    assert len(find_triplets(kitti(root, *stereo), root)) == 4


def test_synthdrive_has_cameras_of_its_own(synth):
    with pytest.raises(UsageError, match=r"set self_supervised\.per_drive_intrinsics: true"):
        find_triplets(plain("self_supervised.per_drive_intrinsics=false"), synth)


def test_no_data_root_and_no_pose_network_are_said(synth, tmp_path):
    with pytest.raises(UsageError, match="needs its images"):
        find_triplets(plain(), None)
    network = build_network(plain(), "student")
    path = tmp_path / "start.safetensors"
    save_checkpoint(path, network, info=CheckpointInfo(model=network.config, role="imported"))
    start = f"self_supervised.init=checkpoint:{path}"
    with pytest.raises(CheckpointError, match=r"no pose-last\.safetensors beside it.*pose_init"):
        stage_objective(plain(start), "student", None)
    objective = stage_objective(plain(start, "self_supervised.pose_init=random"), "student", None)
    assert same(objective.network.state_dict(), network.state_dict())
    with pytest.raises(AdubenchError, match="does not hold a hr-depth network"):
        build_network(plain(start, "self_supervised.family=hr-depth"), "student")


# Plans ---------------------------------------------------------------------------------------------------------------


def test_a_dry_run_counts_whole_batches_frames_and_weights(synth, tmp_path):
    from adubench.training.plan import plan_training

    recipe = distilled("train.steps=null", "train.epochs=3", "train.batch_size=4")
    plan = plan_training(recipe, output=tmp_path, data_root=synth, stages=("teacher", "student"))
    assert plan.problem == ""
    teacher, student = plan.stages
    count = len(find_triplets(recipe, synth))
    assert teacher.frames == student.frames == count
    assert student.steps == 3 * (count // 4)
    assert "the teacher" in student.learns
    assert "the teacher" not in teacher.learns
    parts = student.estimate.parameters
    network = sum(p.numel() for p in zoo.build(network_config(recipe, "student")).parameters())
    assert parts["network"] == network
    assert parts["frozen teacher"] < network
    assert parts["pose and uncertainty"] > teacher.estimate.parameters["pose and uncertainty"]
    assert student.estimate.gflop["frozen teacher"] > 0
    assert not list(tmp_path.iterdir())


def test_a_dry_run_asks_for_no_weights(synth, tmp_path, monkeypatch):
    import timm

    from adubench.training.estimate import estimate

    real = timm.create_model

    def watched(name, **options):
        assert not options.get("pretrained")
        return real(name, **options)

    monkeypatch.setattr(timm, "create_model", watched)
    found = estimate(load_recipe("monodepth2-m", ["self_supervised.height=64", "self_supervised.width=64"]), "student")
    assert found.parameters["network"] == 11_176_512 + 3_152_724


def test_pictures_of_triplets_need_no_ground_truth(drive):
    from adubench.training.trackers import pictures

    recipe = distilled(f"data.train={drive / 'list.txt'}", "self_supervised.per_drive_intrinsics=false", *WEIGHTED)
    objective = stage_objective(recipe, "student", build_network(recipe, "teacher")).train()
    batch = batch_of(recipe, drive)
    drawn = pictures(batch, objective.pictures(batch), count=1)
    assert {name: image.shape for name, image in drawn.items()} == dict.fromkeys(
        ("input", "prediction", "teacher"), (1, 64, 64, 3)
    )
    assert objective.network.training
    assert not objective.teacher.training


def test_advice_when_memory_runs_out_names_keys_of_this_method():
    from adubench.training.guards import memory_error

    recipe = load_recipe("sub-depth-monodepth2")
    text = str(memory_error(recipe, recipe.train, "student", step=3, micro_batch=12))
    assert "train.accumulate=2" in text
    assert "self_supervised.height" in text
    assert "student.activation_checkpointing" not in text


@pytest.mark.slow
def test_two_processes_train_what_one_trains(synth, tmp_path):
    """Losses are means over all processes, and no process waits for a gradient that never comes."""
    from tests.training.test_processes import TRAIN, launch

    code = tmp_path / "go.py"
    code.write_text(TRAIN.replace('"demo"', '"demo-monodepth2"'))
    changes = (*TINY, "train.batch_size=4", "train.sync_batch_norm=true")
    found = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        done = launch(code, folder, synth, *changes, processes=processes)
        assert done.returncode == 0, done.stderr[-3000:]
        lines = [json.loads(line) for line in (folder / "student/log.jsonl").read_text().splitlines()]
        found.append([line["loss"] for line in lines if line["event"] == "step"])
    assert found[0] == pytest.approx(found[1], rel=1e-3)
