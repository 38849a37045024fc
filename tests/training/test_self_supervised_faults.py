"""Self-supervised training: faults of calibrations, sizes and a teacher's scale are said before the first step."""

import shutil

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from adubench.errors import DataError, UsageError  # noqa: E402
from adubench.recipes.recipe import load_recipe  # noqa: E402
from adubench.training import run  # noqa: E402
from adubench.training.build import build_network  # noqa: E402
from adubench.training.checkpoint import CheckpointInfo, save_checkpoint  # noqa: E402
from adubench.training.self_supervised_build import find_triplets  # noqa: E402
from adubench.training.self_supervised_objectives import teacher_scale  # noqa: E402
from tests.self_supervised import DRIVE, write_drive  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = (
    "self_supervised.family=hr-depth-lite",
    "self_supervised.pose_model_type=posecnn",
    "self_supervised.frame_ids=[0,-1,1]",
    "self_supervised.use_stereo=false",
    "self_supervised.height=64",
    "self_supervised.width=64",
    "sub_depth.loss_mode=weighted",
    "sub_depth.w_pho=0.6",
    "sub_depth.w_reg=0.4",
)


def distilled(*changes):
    return load_recipe("demo-sub-depth", [*TINY, *changes])


def test_a_teacher_of_another_scale_is_said_and_recorded(tmp_path):
    """Not refused: SUB-Depth from a stereo teacher is a way to a student of neighbours that keeps a scale."""
    alone, stereo = distilled(), distilled("self_supervised.use_stereo=true")
    taught = build_network(stereo, "teacher")
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(path, taught, info=CheckpointInfo(model=taught.config, role="teacher"))
    stage = run._stage(alone, "student", tmp_path, None, None, path, "cpu")
    assert stage.notes[0].startswith("teacher.safetensors: the teacher was trained with stereo")
    assert "takes over" in stage.source["teacher_scale"]
    assert teacher_scale(stereo, taught) == ""
    assert "no known scale" in teacher_scale(stereo, build_network(alone, "teacher"))


@pytest.mark.filterwarnings("ignore:calibration not found")
def test_the_calibration_of_every_date_is_read_before_the_first_step(tmp_path):
    """Also of the last one, which an epoch would come to after hours."""
    write_drive(tmp_path)
    late = DRIVE.replace(DRIVE[:10], "2031_01_02")
    shutil.copytree(tmp_path / DRIVE[:10] / f"{DRIVE}_sync", tmp_path / "2031_01_02" / f"{late}_sync")
    lines = [f"{name[:10]}/{name}_sync {frame} l\n" for name in (DRIVE, late) for frame in range(1, 5)]
    (tmp_path / "list.txt").write_text("".join(lines))
    recipe = load_recipe("demo-monodepth2", [*TINY[:6], f"data.train={tmp_path / 'list.txt'}"])
    with pytest.raises(DataError, match=r"calibration not found: .*2031_01_02"):
        find_triplets(recipe, tmp_path)
    plain = load_recipe(
        "demo-monodepth2",
        [*TINY[:6], f"data.train={tmp_path / 'list.txt'}", "self_supervised.per_drive_intrinsics=false"],
    )
    assert len(find_triplets(plain, tmp_path)) == 8


def test_sizes_that_no_image_has_are_refused():
    with pytest.raises(UsageError, match=r"height: 1048576 must be at most 16384"):
        load_recipe("demo-monodepth2", ["self_supervised.height=1048576"])
