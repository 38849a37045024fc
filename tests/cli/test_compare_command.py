"""`adubench compare` as a user runs it: formats, refusals, exit statuses, start-up."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys

import pytest

from adubench.cli import main
from adubench.evaluators.result import save_results
from tests.conftest import assert_one_sentence
from tests.evaluators.results_for_comparison import make_result

FAST = ("--resamples", "300")


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """Run the command line in this process, which saves its start-up; the user's view is the same."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in args])
        out = capsys.readouterr()
        return subprocess.CompletedProcess(args, int(stop.value.code or 0), out.out, out.err)

    return run


@pytest.fixture
def files(tmp_path):
    """Two comparable results, one of another protocol, one partial, one of one drive."""
    made = {
        "ours": make_result("ours", 1),
        "base": make_result("base", 2, bias=0.1),
        "full": make_result("full", 1, protocol="kitti-eigen-full"),
        "part": make_result("part", 3, drop=(1, 2)),
        "lone": make_result("lone", 1, drives=1),
        "alone": make_result("alone", 2, drives=1),
    }
    for name, result in made.items():
        save_results([result], tmp_path / f"{name}.json")
    save_results([make_result("both", 1), make_result("both", 1, protocol="kitti-eigen-full")], tmp_path / "both.json")
    return tmp_path


def test_json_is_the_contracts(files, run_here):
    done = run_here("compare", "ours.json", "base.json", "--format", "json", "--baseline", "base", *FAST)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert set(data) == {"protocol", "baseline", "comparisons"}
    (pair,) = data["comparisons"]
    assert (pair["a"], pair["b"], data["baseline"]) == ("ours", "base", "base")
    cell = pair["regions"]["all"]["abs_rel"]
    assert cell["delta"] < 0
    assert cell["ci"][0] <= cell["delta"] <= cell["ci"][1]
    assert 0 <= cell["p"] <= cell["p_holm"] <= 1
    assert cell["n_clusters"] == 8
    again = run_here("compare", "ours.json", "base.json", "--format", "json", "--baseline", "base.json", *FAST)
    assert again.stdout == done.stdout


def test_the_table_names_protocol_split_images_and_marks(files, run_here):
    done = run_here("compare", "ours.json", "base.json", "part.json", *FAST)
    assert done.returncode == 0, done.stderr
    for words in ("kitti-eigen v1", "split eigen_test", "30 images", "8 drives", "abs_rel ↓", "Δ base - ours",
                  "partial: 30 of 32 images", "unequal image sets", "¹", "²", "a = part, b = ours"):  # fmt: skip
        assert words in done.stdout, words


@pytest.mark.parametrize(
    ("form", "words"), [("markdown", "| model |"), ("latex", r"\toprule"), ("csv", "table,protocol,group")]
)
def test_files_are_written(files, run_here, form, words):
    done = run_here("compare", "ours.json", "base.json", "--format", form, "-o", "out/table.txt", *FAST)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert words in (files / "out/table.txt").read_text(encoding="utf-8")


def test_options_change_something(files, run_here):
    def cell(*options):
        done = run_here("compare", "ours.json", "base.json", "--metric", "rmse", "--format", "json", *FAST, *options)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["comparisons"][0]["regions"]["all"].values()
        return row

    plain = cell()
    assert cell("--cluster", "image")["n_clusters"] == 32
    assert cell("--cluster", "block:2")["n_clusters"] == 16
    assert cell("--confidence", "0.8")["ci"] != plain["ci"]
    assert cell("--interval", "percentile")["ci"] != plain["ci"]
    assert cell("--interval", "percentile", "--seed", "4")["ci"] != cell("--interval", "percentile")["ci"]
    assert cell("--interval", "percentile", "--boot", "bayes")["ci"] != cell("--interval", "percentile")["ci"]


def test_published_rows_are_marked_with_their_source(files, run_here):
    done = run_here("compare", "ours.json", "--published", "--format", "csv", *FAST)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    published = [row for row in rows if row["kind"] == "published"]
    assert len(published) > 10
    assert all(row["source"] and "published" in row["remarks"] for row in published)
    assert {row["group"] for row in published if row["table"] == "published"} != {""}


def test_published_rows_alone(run_here):
    done = run_here("compare", "--published", "--protocol", "kitti-eigen")
    assert done.returncode == 0, done.stderr
    assert "ADU-Depth" in done.stdout
    assert "gt not stated" in done.stdout
    data = json.loads(run_here("compare", "--published", "--protocol", "kitti-eigen", "--format", "json").stdout)
    assert data["comparisons"] == []
    assert {"method", "group", "values", "source"} <= set(data["published"][0])


def test_other_protocols_are_refused_unless_forced(files, run_here):
    done = run_here("compare", "ours.json", "full.json", *FAST)
    assert_one_sentence(done, 1, "ours", "full", "frame: full instead of window", "--force")
    forced = run_here("compare", "ours.json", "full.json", "--force", *FAST)
    assert forced.returncode == 0, forced.stderr
    assert "NOT COMPARABLE (--force): kitti-eigen v1 + kitti-eigen-full v1" in forced.stdout
    assert "protocol kitti-eigen-full v1" in forced.stdout


def test_a_file_with_several_protocols_needs_a_choice(files, run_here):
    assert_one_sentence(run_here("compare", "ours.json", "both.json", *FAST), 2, "--protocol", "kitti-eigen-full")
    done = run_here("compare", "ours.json", "both.json", "--protocol", "kitti-eigen", *FAST)
    assert done.returncode == 0, done.stderr
    missing = run_here("compare", "ours.json", "--protocol", "kitti-mdb", *FAST)
    assert_one_sentence(missing, 1, "no result under protocol 'kitti-mdb'")


def test_one_drive_gives_a_table_and_no_p_value(files, run_here):
    done = run_here("compare", "lone.json", "alone.json", *FAST)
    assert done.returncode == 0, done.stderr
    assert "no interval and no p-value" in done.stdout
    assert "all frames are of one cluster (drives)" in done.stdout
    assert "resamples are empty" not in done.stdout  # said once is enough


def test_results_with_one_label_are_called_by_their_files(files, run_here):
    for name in ("x", "y"):
        save_results([make_result("same", ord(name))], files / name / "r.json")
    data = json.loads(run_here("compare", "x/r.json", "y/r.json", "--format", "json", *FAST).stdout)
    assert (data["comparisons"][0]["a"], data["baseline"]) == ("y/r", "x/r")


def test_bad_input(files, run_here):
    (files / "text.json").write_text("no json")
    (files / "other.json").write_text('{"tool": "another", "scores": [1, 2]}')
    new = json.loads((files / "ours.json").read_text())
    (files / "new.json").write_text(json.dumps(new | {"schema_version": 99}))
    (files / "binary.json").write_bytes(b"\x00\xff" * 20)
    cases = [
        (("missing.json",), 1, "missing.json"),
        (("text.json",), 1, "not JSON"),
        (("other.json",), 1, "not a result of adubench"),
        (("new.json",), 1, "schema version 99"),
        (("binary.json",), 1, "binary.json"),
        ((".",), 1, "cannot be read"),
        (("ours.json", "ours.json"), 2, "given twice"),
        (("ours.json", "base.json", "--baseline", "bsae"), 2, "did you mean 'base'"),
        (("ours.json", "--metric", "absrel"), 2, "unknown metric"),
        (("ours.json", "--region", "depth7"), 2, "unknown region"),
        (("ours.json", "--cluster", "street"), 2, "--cluster street"),
        (("ours.json", "--cluster", "none.csv"), 1, "none.csv"),
        (("ours.json", "--resamples", "3"), 2, "--resamples 3"),
        ((), 2, "nothing to compare"),
        (("--published",), 2, "--protocol"),
        (("--published", "--protocol", "full-frame"), 2, "no published results"),
    ]
    for arguments, status, words in cases:
        assert_one_sentence(run_here("compare", *arguments), status, words)


def test_a_changed_moment_table_is_refused(files, run_here):
    (files / "ours.npz").write_bytes((files / "base.npz").read_bytes())
    assert_one_sentence(run_here("compare", "ours.json", "base.json"), 1, "does not belong to")


def test_without_moment_tables_the_image_means_are_compared(files, run_here):
    (files / "ours.npz").unlink()
    done = run_here("compare", "ours.json", "base.json", *FAST)
    assert done.returncode == 0, done.stderr


def test_compare_imports_nothing_heavy(files):
    code = (
        "import sys; from adubench.cli import main\n"
        "try: main(['compare', 'ours.json', 'base.json', '--resamples', '200'])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'torch', 'scipy', 'matplotlib', 'pandas', 'cv2', 'numba', 'h5py', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=files, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_methods_are_compared_by_their_runs(tmp_path, run_here):
    for name, bias in (("a", 0.1), ("b", 0.0)):
        for seed in range(3):
            save_results([make_result(f"{name}{seed}", seed, bias=bias)], tmp_path / f"{name}{seed}.json")
    methods = ("--method", "ours=a0.json,a1.json,a2.json", "--method", "base=b0.json,b1.json,b2.json")
    done = run_here("compare", *methods, "--baseline", "base", "--metric", "rmse", *FAST)
    assert done.returncode == 0, done.stderr
    assert "3 runs" in done.stdout
    assert "±" in done.stdout
    assert "b better" in done.stdout
    data = json.loads(run_here("compare", *methods, "--format", "json", *FAST).stdout)
    assert [pair["a"] for pair in data["comparisons"]] == ["base"]
    assert data["comparisons"][0]["regions"]["all"]["rmse"]["smallest_p"] == pytest.approx(0.1)


def test_published_rows_stand_beside_methods(tmp_path, run_here):
    for name, bias in (("a", 0.1), ("b", 0.0)):
        for seed in range(3):
            save_results([make_result(f"{name}{seed}", seed, bias=bias)], tmp_path / f"{name}{seed}.json")
    methods = ("--method", "ours=a0.json,a1.json,a2.json", "--method", "base=b0.json,b1.json,b2.json")
    text = run_here("compare", *methods, "--published", "--format", "markdown", *FAST).stdout
    values = text.split("### Differences")[0]
    assert "NeWCRFs" in values
    assert "3 runs" in values
    assert "Differences to ours" in text
    data = json.loads(run_here("compare", *methods, "--published", "--format", "json", *FAST).stdout)
    assert data["published"]
    assert "published" not in json.loads(run_here("compare", *methods, "--format", "json", *FAST).stdout)


def test_a_checkpoint_of_a_method_stands_for_its_stored_result(tmp_path, run_here):
    for name, bias in (("a", 0.1), ("b", 0.0)):
        for seed in range(2):
            checkpoint = tmp_path / f"{name}{seed}.safetensors"
            checkpoint.write_bytes(f"{name} {seed}".encode())
            result = make_result(f"{name}{seed}", seed, bias=bias)
            result.provenance["predictor"] = {"sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()}
            save_results([result], checkpoint.with_suffix(".json"))
    methods = ("--method", "ours=a0.safetensors,a1.safetensors", "--method", "base=b0.json,b1.json")
    done = run_here("compare", *methods, "--paired-seeds", "--format", "json", *FAST)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["comparisons"][0]["regions"]["all"]["abs_rel"]["paired"]


def test_methods_of_two_protocols_are_refused_without_naming_force(files, run_here):
    done = run_here("compare", "--method", "a=ours.json", "--method", "b=full.json", *FAST)
    assert_one_sentence(done, 1, "full was scored under")
    assert "--force" not in done.stderr


def test_equivalence_and_other_tests(files, run_here):
    wide = run_here("compare", "ours.json", "base.json", "--metric", "rmse", "--equiv", "100", *FAST).stdout
    narrow = run_here("compare", "ours.json", "base.json", "--metric", "rmse", "--equiv", "0.0001", *FAST).stdout
    assert ", equivalent" in wide
    assert "not equivalent" in narrow
    swap, signed, t = (
        json.loads(run_here("compare", "ours.json", "base.json", "--test", test, "--format", "json", *FAST).stdout)
        for test in ("swap", "wilcoxon", "t")
    )
    values = [d["comparisons"][0]["regions"]["all"]["rmse"]["p"] for d in (swap, signed, t)]
    assert values[0] != values[2]
    assert all(0 < p < 0.05 for p in values)
    text = run_here("compare", "ours.json", "base.json", "--test", "wilcoxon", *FAST).stdout
    assert "Wilcoxon signed rank on means over drives" in " ".join(text.split())


def test_latex_has_intervals_and_daggers(tmp_path, run_here):
    save_results([make_result("x", 1)], tmp_path / "x.json")
    save_results([make_result("y", 2)], tmp_path / "y.json")
    text = run_here("compare", "x.json", "y.json", "--format", "latex", "--metric", "rmse", *FAST).stdout
    assert r"\scriptsize [" in text
    assert r"\textsuperscript{\dag}" in text


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--method", "a"), "expected NAME=FILE"),
        (("--method", "a=ours.json"), "two or more"),
        (("--method", "a=ours.json", "--method", "a=base.json"), "given twice"),
        (("--paired-seeds", "ours.json", "base.json"), "goes with --method"),
        (("ours.json", "base.json", "--equiv", "-1"), "margin > 0"),
        (("ours.json", "--method", "a=ours.json", "--method", "b=base.json"), "without result files"),
    ],
)
def test_bad_methods_are_one_sentence(files, run_here, args, text):
    done = run_here("compare", *args, *FAST)
    assert_one_sentence(done, 2, text)


def test_a_published_number_that_is_rounded_too_coarsely_is_said(tmp_path, run_here):
    from adubench.reports.published import own_key, select

    result = make_result("ours", 1)
    own = own_key(result.protocol, "paper")
    row = next(r for r in select("kitti-eigen", "eigen_test") if "abs_rel" in r.values and r.key == own)
    result.per_image["abs_rel"] = [float(row.values["abs_rel"]) + 1e-5] * len(result.per_image["frame"])
    save_results([result], tmp_path / "ours.json")
    text = run_here("compare", "ours.json", "--published", "--metric", "abs_rel", *FAST).stdout
    assert "beyond the rounding in print" in " ".join(text.split())


def test_a_checkpoint_chosen_on_the_test_split_is_said(tmp_path, run_here):
    result = make_result("ours", 1)
    result.provenance["selection_split"] = result.split
    save_results([result], tmp_path / "ours.json")
    save_results([make_result("base", 2)], tmp_path / "base.json")
    text = " ".join(run_here("compare", "ours.json", "base.json", *FAST).stdout.split())
    assert "ours was chosen among checkpoints on eigen_test" in text
