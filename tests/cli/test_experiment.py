"""`adubench experiment`: runs are done once, survive interruptions, are shared between workers, and make a table."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from adubench.cli import main
from adubench.errors import TrainingError
from adubench.recipes.experiments import Expansion, expand, load_experiment

pytest.importorskip("torch")

from adubench.training import experiment_runs
from adubench.training.experiment_measures import Measured
from adubench.training.experiment_runs import Place, best_rows, read_record, records_of, run_here
from adubench.training.experiment_tables import build_table


class Stand:
    """Stands in for training and measuring: counts, and scores by the recipe."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.roots: list[Any] = []
        self.stop_at: str | None = None
        self.fail_at: str | None = None

    def train(self, recipe: Any, *, output: Path, stages: tuple[str, ...], **rest: Any) -> list[Path]:
        (stage,) = stages
        path = output / stage / "checkpoint-last.safetensors"
        if path.exists():
            return [path]
        if self.stop_at == output.name:
            raise KeyboardInterrupt
        if self.fail_at == output.name:
            raise TrainingError("the loss is NaN")
        self.trained.append(f"{output.name}/{stage}")
        self.roots.append(rest["data_root"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        return [path]

    def measure(self, experiment: Any, inputs: Any, scale: str) -> Measured:
        distill = inputs.spec.recipe.distill
        score = 10.0 + inputs.spec.seed - distill.lambda_.umr - (1 if distill.enabled else 0)
        if inputs.spec.role == "teacher":
            score = 1.0
        numbers = {
            "silog": score,
            "sq_rel": score / 10,
            "abs_rel": score / 100,
            "rmse": score,
            "rmse_log": 0.1,
            "d1": 0.5,
        }
        return Measured(numbers, {}, {"gap": "there is no teacher"})


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    found = Stand()
    monkeypatch.setattr("adubench.training.run.train", found.train)
    monkeypatch.setattr(experiment_runs, "measure", found.measure)
    return found


def small(seeds: int = 2) -> Expansion:
    return expand(load_experiment("table4")[0], "smoke", seeds=seeds)


def quiet(text: str) -> None:
    pass


def test_rows_share_their_teacher_and_finished_runs_are_kept(stand: Stand, tmp_path: Path) -> None:
    place = Place(tmp_path)
    run_here(small(), place, quiet)
    teachers = [name for name in stand.trained if name.endswith("/teacher")]
    students = [name for name in stand.trained if name.endswith("/student")]
    assert len(teachers) == 2  # one per seed
    assert len(students) == 6 * 2  # all rows but the teacher's
    before = list(stand.trained)
    run_here(small(), place, quiet)
    assert stand.trained == before
    run_here(small(seeds=3), place, quiet)
    assert len(stand.trained) == len(before) + 1 + 6


def test_finished_runs_keep_no_training_states(stand: Stand, tmp_path: Path) -> None:
    place, expansion = Place(tmp_path), small(1)
    stage = place.run_folder("full-s0") / "student"
    stage.mkdir(parents=True)
    teacher = place.teacher_folder(expansion.runs[-1].recipe) / "teacher"
    teacher.mkdir(parents=True)
    for folder in (stage, teacher):
        (folder / "state-00000010.pt").write_bytes(b"large")
    stand.stop_at = "full-s0"
    with pytest.raises(KeyboardInterrupt):
        run_here(expansion, place, quiet)
    assert (stage / "state-00000010.pt").exists()  # an interrupted run is continued from it
    stand.stop_at = None
    run_here(expansion, place, quiet)
    assert not list(tmp_path.rglob("state-*.pt"))
    assert list(stage.glob("checkpoint-last*"))


def test_every_data_set_is_trained_from_its_own_root(stand: Stand, tmp_path: Path) -> None:
    expansion = expand(load_experiment("E3")[0], "dev", only=["published"])
    place = Place(tmp_path, Path("KITTI"), {"drivingstereo": Path("DS")})
    run_here(expansion, place, quiet)
    assert [spec.data_set for spec in expansion.runs] == ["kitti", "drivingstereo"]
    assert stand.roots == [Path("KITTI"), Path("KITTI"), Path("DS"), Path("DS")]  # teacher and student of each


def test_the_index_says_what_state_each_run_is_in(stand: Stand, tmp_path: Path) -> None:
    expansion = small()
    stand.stop_at, stand.fail_at = "full-uem-s0", "full-focal-s1"
    with pytest.raises(KeyboardInterrupt):
        run_here(expansion, Place(tmp_path), quiet)
    index = json.loads((tmp_path / "runs.json").read_text())
    states = {row["id"]: row["state"] for row in index["runs"]}
    assert states["baseline-s0"] == states["full-focal-s0"] == "finished"
    assert states["full-focal-s1"] == "failed"
    assert states["full-s0"] == "waiting"
    row = index["runs"][2]
    assert {"id", "row", "seed", "recipe_digest", "results", "checkpoint", "set", "log", "recipe"} <= row.keys()
    assert row["numbers"]["silog"] == pytest.approx(9.1)
    assert row["absent"] == {"gap": "there is no teacher"}
    assert (tmp_path / index["runs"][4]["teacher"]).is_file()
    assert index["columns"]["sq_rel"] == "sq_rel"
    assert any("9.69" in caution for caution in index["cautions"])
    stand.stop_at = stand.fail_at = None
    run_here(expansion, Place(tmp_path), quiet)
    states = {row["state"] for row in json.loads((tmp_path / "runs.json").read_text())["runs"]}
    assert states == {"finished"}


def test_a_folder_of_other_recipes_is_refused(stand: Stand, tmp_path: Path) -> None:
    run_here(small(1), Place(tmp_path), quiet)
    other = expand(load_experiment("table4")[0], "smoke", seeds=1, overrides=["train.steps=3"])
    with pytest.raises(Exception, match="another recipe"):
        read_record(Place(tmp_path), other.runs[1])


def test_the_table_has_means_spread_and_deltas(stand: Stand, tmp_path: Path) -> None:
    expansion, place = small(), Place(tmp_path)
    run_here(expansion, place, quiet)
    table = build_table(expansion, records_of(expansion, place), place)
    rows = {row.name: row for row in table.rows}
    sq_rel = [column.title for column in table.columns].index("sq_rel")
    base, full = rows["Baseline"].cells[sq_rel], rows["Full"].cells[sq_rel]
    assert base.mean == pytest.approx((9.1 + 10.1) / 20)
    assert base.spread == pytest.approx(0.1 / 2**0.5)
    assert base.delta is None
    assert full.delta == pytest.approx(-0.1)
    assert rows["Full"].published["sq_rel"] == 0.147
    assert any("5.96" in note for note in table.notes)
    assert any("result files are on another machine" in note for note in table.notes)


def test_what_has_no_number_has_a_reason(stand: Stand, tmp_path: Path) -> None:
    expansion, place = expand(load_experiment("E6")[0], "smoke", seeds=1), Place(tmp_path)
    run_here(expansion, place, quiet)
    table = build_table(expansion, records_of(expansion, place), place)
    assert all(cell.text == "n/a" for row in table.rows for cell in row.cells)
    assert any(note.startswith("n/a: FD enc before") and "there is no teacher" in note for note in table.notes)


def test_unfinished_runs_are_counted(stand: Stand, tmp_path: Path) -> None:
    expansion, place = small(1), Place(tmp_path)
    table = build_table(expansion, [], place)
    assert table.notes[1].startswith("7 of 7 runs are not finished")
    assert {row.remark for row in table.rows} == {"not run yet"}


def test_the_search_ranks_its_points_and_correlates(stand: Stand, tmp_path: Path) -> None:
    expansion, place = expand(load_experiment("E3")[0], "smoke"), Place(tmp_path)
    run_here(expansion, place, quiet)
    records = records_of(expansion, place)
    table = build_table(expansion, records, place)
    assert table.searches["all"]["silog"]["distill.lambda.umr"] == pytest.approx(-1.0)
    best = max((r for r in expansion.runs), key=lambda s: s.recipe.distill.lambda_.umr).variant
    assert best_rows(records, "silog") == [best]
    assert any(note.startswith(f"best point by silog: {best}") for note in table.notes)
    assert any("this scale has one data set" in note for note in table.notes)


def test_workers_share_a_study(stand: Stand, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    from adubench.training.experiment_study import open_study, run_shared, study_name

    expansion, storage = expand(load_experiment("E3")[0], "smoke"), str(tmp_path / "study.log")
    assert len(open_study(expansion, storage).get_trials()) == 37
    first, second = Place(tmp_path / "a"), Place(tmp_path / "b")
    stand.stop_at = "sobol-03-s0"
    with pytest.raises(KeyboardInterrupt):
        run_shared(expansion, first, storage, quiet)
    done = [name for name in stand.trained if name.endswith("/student")]
    assert len(done) == 8
    stand.stop_at = None
    run_shared(expansion, second, storage, quiet)
    # The second machine did the rest and knows the numbers of the first.
    assert len([name for name in stand.trained if name.endswith("/student")]) == 37
    assert len(records_of(expansion, second)) == 37
    study = open_study(expansion, storage)
    assert study.study_name == study_name(expansion)
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert len(complete) == 37
    assert "distill.lambda.umr" in complete[-1].params


def test_a_run_that_two_workers_enqueued_is_done_once(stand: Stand, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    from adubench.training.experiment_study import open_study, run_shared

    expansion, storage = small(1), str(tmp_path / "study.log")
    study = open_study(expansion, storage)
    ask = study.ask()  # another worker has the first run, and will be slow
    assert ask.user_attrs["run"] == "teacher-s0"
    for spec in expansion.runs:
        study.enqueue_trial({}, user_attrs={"run": spec.id})
    ask.set_user_attr("alive", time.time())
    run_shared(expansion, Place(tmp_path), storage, quiet)
    assert sorted(stand.trained) == sorted(set(stand.trained))
    assert not any(name == "teacher-s0/student" for name in stand.trained)
    states = [trial.state for trial in open_study(expansion, storage).get_trials()]
    assert states.count(optuna.trial.TrialState.PRUNED) == len(expansion.runs)
    assert states.count(optuna.trial.TrialState.RUNNING) == 1


def test_the_first_of_two_trials_of_a_run_counts_though_it_is_waiting() -> None:
    optuna = pytest.importorskip("optuna")
    from adubench.training.experiment_study import _done_elsewhere

    study = optuna.create_study()
    for _ in range(2):
        study.enqueue_trial({}, user_attrs={"run": "full-s0"})
    first, second = study.get_trials()
    assert _done_elsewhere(study, second)
    assert not _done_elsewhere(study, first)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)  # the first one was given back
    assert not _done_elsewhere(study, second)


WORKER = """
import json, os, sys, time
from pathlib import Path
from adubench.recipes.experiments import expand, load_experiment
from adubench.training import experiment_study
from adubench.training.experiment_runs import Place, Record

root, name = Path(sys.argv[1]), sys.argv[2]

def run_one(experiment, spec, scale, place):
    with open(root / "taken.log", "a") as file:
        file.write(f"{name} {spec.id}\\n")
    time.sleep(0.01)
    return Record(spec.id, spec.variant, spec.data_set, spec.seed, spec.role, spec.digest, "finished", {"silog": 1.0})

experiment_study.run_one = run_one
expansion = expand(load_experiment("E3")[0], "smoke")
(root / f"ready-{name}").touch()
while len(list(root.glob("ready-*"))) < 2:
    time.sleep(0.001)
experiment_study.run_shared(expansion, Place(root / name), str(root / "study.log"), lambda text: None)
"""


@pytest.mark.slow
def test_two_workers_at_once_never_take_the_same_run(tmp_path: Path) -> None:
    """Both processes open one journal at the same moment, enqueue what they find missing, and take runs from it."""
    pytest.importorskip("optuna")
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in ("a", "b")]
    for worker in workers:
        _, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
    taken = [line.split() for line in (tmp_path / "taken.log").read_text().splitlines()]
    assert len({run for _, run in taken}) == len(taken) == 37
    assert {name for name, _ in taken} == {"a", "b"}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_the_command_runs_and_writes_its_files(
    stand: Stand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(
        capsys, "experiment", "table4", "--scale", "smoke", "--seeds", 2, "-o", tmp_path / "t", "--format", "markdown"
    )
    assert code == 0, err
    assert "| Baseline" in out
    assert "9.69" in out
    assert {"table.md", "table.json", "runs.json", "runs", "teachers"} <= {p.name for p in (tmp_path / "t").iterdir()}
    assert json.loads((tmp_path / "t" / "table.json").read_text())["rows"][0]["name"] == "Teacher"


def test_rows_that_wait_for_the_best_are_run_last(
    stand: Stand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(
        capsys, "experiment", "E2", "--seeds", 1, "-o", tmp_path, "--row", "alpha 0.25 at the best", "--format", "csv"
    )
    assert code == 0, err
    assert stand.trained[-1] == "alpha-0.25-at-the-best-s0/student"
    assert "alpha 0.25 at the best" in out


def test_dry_run_lists_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "experiment", "E4", "--scale", "synth", "--dry-run")
    assert code == 0
    assert "15 runs" in out
    assert "n/a: patch repeat" in out


@pytest.mark.parametrize(("name", "network"), [("self_supervised", "diffnet"), ("tie_kd_methods", "densedepth")])
def test_dry_run_names_the_network_of_every_method(name: str, network: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "experiment", name, "--scale", "synth", "--seeds", 1, "--dry-run")
    assert code == 0
    assert network in out
    assert "large07" not in out


def test_what_later_rows_lack_is_said_before_the_first_is_trained(
    stand: Stand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, status, words in (
        (["tie_kd_methods", "--scale", "smoke"], 2, "row 'Res-KD SSIM + SI' learns from a teacher's stored maps"),
        (["tie_kd_methods", "--set", "teacher_maps.path=nowhere"], 1, "are not at nowhere"),
        (["table4", "--data-root", str(tmp_path / "nowhere")], 1, "data root not found"),
    ):
        code, _, err = run(capsys, "experiment", *arguments, "-o", tmp_path / "t")
        assert (code, words in err) == (status, True), err
    assert not stand.trained
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["E9"], "unknown experiment 'E9'"),
        (["E1", "--scale", "ful"], "did you mean 'full'"),
        (["E1", "--row", "identiti"], "did you mean 'identity'"),
        (["E3", "--scale", "full"], "give --best-of DIR"),
        (["E1", "--best-of", "."], "re-runs no best rows"),
        (["E1", "--set", "train.lr=x"], "expected a number"),
        (["E7", "--test-root", "drivingstereo"], "expected NAME=DIR"),
    ],
)
def test_faults_are_sentences(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "experiment", *arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_real_smoke_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training, evaluation, regions and statistics together, on a generated data set."""
    run(capsys, "data", "synth", tmp_path / "data", "--drives", 6, "--frames", 14, "--size", "96x320")
    code, out, err = run(
        capsys, "experiment", "E8", "--scale", "smoke", "--seeds", 1, "--row", "Full", "--data-root", tmp_path / "data",
        "-o", tmp_path / "e8", "--set", "train.steps=2", "--format", "json",
    )  # fmt: skip
    assert code == 0, err
    table = json.loads(out)
    cells = table["rows"][1]["cells"]
    assert all(cell["mean"] is not None for cell in cells)
    assert "abs_rel" in table["comparisons"]["all"]["comparisons"][0]["regions"]["boundary"]


@pytest.mark.slow
def test_table4_at_smoke_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All rows of Table 4, one seed, four steps each, trained and scored for real."""
    run(capsys, "data", "synth", tmp_path / "data", "--drives", 3, "--frames", 12, "--size", "96x320")
    code, out, err = run(
        capsys, "experiment", "table4", "--scale", "smoke", "--seeds", 1, "--data-root", tmp_path / "data",
        "-o", tmp_path / "t", "--format", "json", "--set", "train.steps=4",
    )  # fmt: skip
    assert code == 0, err
    table = json.loads(out)
    assert [row["name"] for row in table["rows"]] == [v.name for v in load_experiment("table4")[0].vary]
    assert all(cell["mean"] is not None for row in table["rows"] for cell in row["cells"])
    assert len(table["comparisons"]["all"]["comparisons"]) == 6
    index = json.loads((tmp_path / "t" / "runs.json").read_text())
    for row in index["runs"]:
        assert row["state"] == "finished"
        for path in (row["checkpoint"], row["log"], row["recipe"], *row["results"].values()):
            assert (tmp_path / "t" / path).is_file()
    assert len({row["teacher"] for row in index["runs"]} - {""}) == 1  # all rows share one teacher


@pytest.mark.slow
def test_gaps_over_time_and_curves_for_real(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Milestones with adapters, gradient shares in the log, and the tables made of them."""
    run(capsys, "data", "synth", tmp_path / "data", "--drives", 3, "--frames", 12, "--size", "96x320")
    common = ("--scale", "smoke", "--seeds", 1, "--data-root", tmp_path / "data", "--format", "json")
    few = ("--set", "train.steps=4", "--set", "validate.every=2", "--set", "log.every=1")
    times = ("--set", "checkpoint.milestones=[0]")
    code, out, err = run(capsys, "experiment", "E6", *common, *few, *times, "--row", "conv1x1", "-o", tmp_path / "e6")
    assert code == 0, err
    (detail,) = json.loads(out)["details"]
    assert len(detail["rows"]) == 2 * 2 * 8  # rows, times (before and after), levels
    assert all(value is not None for _, values in detail["rows"] for value in values)
    best = "gamma 2.0, granularity image, score linear"
    code, out, err = run(capsys, "experiment", "E2", *common, *few, "--row", best, "-o", tmp_path / "e2")
    assert code == 0, err
    (row,) = json.loads(out)["rows"]
    assert all(cell["mean"] is not None or cell["text"] != "n/a" for cell in row["cells"])
