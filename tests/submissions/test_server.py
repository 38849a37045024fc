"""Scoring like the server: the devkit's own numbers through check_submission, and its reactions to bad files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from adubench.errors import AdubenchError, SubmissionError
from adubench.io.png import decode_grey16, encode_grey16
from adubench.submissions.devkit_png import decode_any
from adubench.submissions.findings import SubmissionReport
from adubench.submissions.validate import check_submission
from tests.submissions.helpers import SIZE, codes, good, pil_png, png, raw_png, scene, write_zip

GOLDEN = Path(__file__).parents[1] / "data" / "kitti_devkit"
REFERENCE = json.loads((GOLDEN / "results.json").read_text(encoding="utf-8"))
CASES = {name: case for name, case in REFERENCE["cases"].items() if not case.get("error")}


def golden_set(tmp_path: Path, names: list[str], archive: bool) -> SubmissionReport:
    """Build a package and ground truth of golden files and score it."""
    gt = tmp_path / "gt"
    gt.mkdir()
    members = {}
    for i, name in enumerate(sorted(names)):
        shutil.copy(GOLDEN / "gt" / f"{name}.png", gt)
        members[f"{i:010d}.png"] = (GOLDEN / "pred" / f"{name}.png").read_bytes()
    if archive:
        package = write_zip(tmp_path / "s.zip", members)
    else:
        package = tmp_path / "maps"
        package.mkdir()
        for name, data in members.items():
            (package / name).write_bytes(data)
    return check_submission(package, kind="rehearsal", gt=gt)


def printed(value: float | None) -> str:
    return "nan" if value is None else f"{value:.6f}"


@pytest.mark.parametrize(("name", "archive"), [("clean", True), ("clean", False), ("with_nan", True)])
def test_golden_sets_give_the_strings_of_stats_depth_txt(tmp_path: Path, name: str, archive: bool) -> None:
    reference = REFERENCE["sets"][name]
    report = golden_set(tmp_path, reference["files"], archive)
    assert report.scores is not None
    assert report.scores["complete"]
    for error, row in reference["stats_depth_txt"].items():
        assert {k: printed(v) for k, v in report.scores["statistics"][error].items()} == row, error
    # All strings of errors_out, file by file.
    for row, case in zip(report.scores["per_file"], sorted(reference["files"]), strict=True):
        assert row["ground_truth"] == f"{case}.png"
        assert [printed(v) for v in row["errors"]] == REFERENCE["cases"][case]["errors_out_txt"]


def test_leaderboard_columns_are_the_devkit_means_in_the_units_of_the_table(tmp_path: Path) -> None:
    report = golden_set(tmp_path, REFERENCE["sets"]["clean"]["files"], archive=True)
    assert report.scores is not None
    means = {k: float(v["mean"]) for k, v in REFERENCE["sets"]["clean"]["stats_depth_txt"].items()}
    expected = {
        "SILog": 100 * means["scale invariant log"],
        "sqErrorRel": 100 * means["squared relative"],
        "absErrorRel": 100 * means["abs relative"],
        "iRMSE": 1000 * means["inverse rmse"],
    }
    # The reference prints six decimals: half a unit of the last one, times the factor.
    for column, value in expected.items():
        assert report.scores["leaderboard"][column] == pytest.approx(value, abs=6e-4), column


def test_nan_scores_are_explained(tmp_path: Path) -> None:
    report = golden_set(tmp_path, REFERENCE["sets"]["with_nan"]["files"], archive=True)
    assert {"G03", "S17"} <= report.codes
    assert report.scores is not None
    assert report.scores["leaderboard"]["SILog"] is None
    assert not report.ok


def test_ground_truth_without_a_pixel_ends_the_run(tmp_path: Path) -> None:
    report = golden_set(tmp_path, REFERENCE["sets"]["with_empty_gt"]["files"], archive=True)
    assert report.scores is not None
    assert report.scores["statistics"] == {}
    assert "has no valid pixel" in report.scores["stopped"]
    assert "G02" in report.codes


def make_truth(folder: Path, names: list[str]) -> Path:
    """Sparse ground truth of the scenes, 5 % of the pixels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        truth = codes(i)
        truth[rng.random(SIZE) > 0.05] = 0
        (folder / name).write_bytes(encode_grey16(truth))
    return folder


def score(tmp_path: Path, members: dict[str, bytes], compat: str | None = None) -> SubmissionReport:
    gt = tmp_path / "gt"
    if not gt.exists():
        make_truth(gt, sorted(good()))
    path = write_zip(tmp_path / "s.zip", members)
    return check_submission(path, count=4, size=SIZE, gt=gt, compat=compat)


def silog(report: SubmissionReport) -> float:
    assert report.scores is not None
    value = report.scores["leaderboard"]["SILog"]
    return math.nan if value is None else value


def test_perfect_prediction_scores_zero(tmp_path: Path) -> None:
    report = score(tmp_path, good())
    assert report.ok
    assert silog(report) == 0.0
    assert report.codes == set()


def test_pairs_are_made_by_order_and_names_that_differ_are_reported(tmp_path: Path) -> None:
    gt = make_truth(tmp_path / "gt", [f"{i + 1:010d}.png" for i in range(4)])
    report = score(tmp_path, good())
    assert [(f.code, f.level) for f in report.findings] == [("G01", "warning")]
    assert silog(report) == 0.0
    for path in gt.iterdir():
        path.rename(gt / f"2011_09_26_drive_0002_sync_groundtruth_depth_{path.stem}_image_02.png")
    report = score(tmp_path, good())
    assert [(f.code, f.level) for f in report.findings] == [("G01", "info")]


def test_val_selection_names_pair_with_their_ground_truth_silently(tmp_path: Path) -> None:
    pattern = "2011_09_26_drive_0002_sync_{}_{:010d}_image_0{}.png"
    keys = [(5, 2), (5, 3), (8, 2), (8, 3)]
    make_truth(tmp_path / "gt", [pattern.format("groundtruth_depth", *k) for k in keys])
    members = {pattern.format("image", *k): d for k, d in zip(keys, good().values(), strict=True)}
    path = write_zip(tmp_path / "v.zip", members)
    report = check_submission(path, kind="completion", count=4, size=SIZE, gt=tmp_path / "gt")
    assert report.findings == ()


def test_files_without_partner_are_named(tmp_path: Path) -> None:
    report = score(tmp_path, {n: d for n, d in good().items() if n != "0000000002.png"})
    assert report.scores is not None
    assert "3 predictions for 4 ground-truth files" in report.scores["stopped"]
    assert "without partner: 0000000002.png" in report.scores["stopped"]


def test_filling_of_missing_pixels(tmp_path: Path) -> None:
    holes = codes()
    holes[:9] = 0
    holes[30, 3:8] = 0
    report = score(tmp_path, {**good(), "0000000000.png": encode_grey16(holes)})
    assert report.codes == {"S18"}
    assert silog(report) > 0


@pytest.mark.parametrize(
    "members",
    [
        {n: d for n, d in good().items() if n != "0000000001.png"},
        {n.replace("1.png", "1.PNG"): d for n, d in good().items()},
        {**good(), "0000000001.png": encode_grey16(codes().T)},
        {**good(), "0000000001.png": b"\xff\xd8\xff JPEG"},
        {f"maps/{n}": d for n, d in list(good().items())[:3]},
    ],
    ids=["count", "upper-case", "size", "jpeg", "folder"],
)
@pytest.mark.parametrize("compat", [None, "devkit"])
def test_faults_end_the_evaluation(tmp_path: Path, members: dict[str, bytes], compat: str | None) -> None:
    report = score(tmp_path, members, compat)
    assert "G02" in report.codes
    assert report.scores is not None
    assert not report.scores["complete"]
    assert report.scores["leaderboard"] == {}


def test_compat_devkit_takes_what_the_evaluator_takes(tmp_path: Path) -> None:
    grey = np.clip(np.rint(scene(1)), 1, 255).astype(np.uint8)
    variants = [
        pil_png(grey),
        pil_png(np.dstack([grey] * 3)),
        pil_png(np.dstack([grey] * 3 + [grey // 2])),
        pil_png(grey, "LA"),
    ]
    scores = set()
    for data in variants:
        members = {**good(), "0000000001.png": data}
        assert "G02" in score(tmp_path, members).codes
        report = score(tmp_path, members, "devkit")
        assert "G02" not in report.codes
        assert not report.ok
        scores.add(silog(report))
    whole = {**good(), "0000000001.png": encode_grey16(grey.astype(np.uint16) * 256)}
    assert scores == {silog(score(tmp_path, whole))}
    assert min(scores) > 0


@pytest.mark.parametrize("color_type", [2, 4, 6])
def test_devkit_reads_sixteen_bit_colour_in_full(color_type: int) -> None:
    rng = np.random.default_rng(color_type)
    value = rng.integers(0, 65536, (11, 9), np.uint16)
    channels = [value] * {2: 3, 4: 1, 6: 3}[color_type]
    if color_type in (4, 6):
        channels.append(rng.integers(0, 65536, value.shape, np.uint16))
    data = raw_png(np.dstack(channels), color_type, kinds=(0, 1, 2, 3, 4))
    np.testing.assert_array_equal(decode_any(data, 1000), value)
    with pytest.raises(SubmissionError, match="no depth map"):
        decode_any(data, 98)
    for cut in (40, len(data) // 2):
        with pytest.raises(AdubenchError):
            decode_any(data[:cut], 1000)


def test_palette_is_read_through_its_colours() -> None:
    grey = np.arange(120, dtype=np.uint8).reshape(10, 12)
    np.testing.assert_array_equal(decode_any(pil_png(grey, "P"), 1000), grey.astype(np.uint16) * 256)
    np.testing.assert_array_equal(decode_any(png(), 10_000), decode_grey16(png(), "x"))


def test_errors_of_the_ground_truth_folder(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", good())
    with pytest.raises(SubmissionError, match="folder of ground truth not found"):
        check_submission(path, gt=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SubmissionError, match=r"no \.png file"):
        check_submission(path, gt=tmp_path / "empty")
    broken = make_truth(tmp_path / "gt", sorted(good()))
    (broken / "0000000002.png").write_bytes(pil_png(np.zeros(SIZE, np.uint8)))
    report = score(tmp_path, good())
    assert "ground truth 0000000002.png" in str([f.message for f in report.findings if f.code == "G02"])
