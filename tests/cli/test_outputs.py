"""Where output goes: onto inputs, devices, links, closed pipes, full disks; and what a shell expects of a command."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import assert_one_sentence

LONG = "a" * 300


def _evaluated(run_cli, pairs, *names):
    pred, gt = pairs(n=3)
    for name in names:
        done = run_cli("eval", pred, "--gt", gt, "-o", name, "--label", name, "--cache", "off")
        assert done.returncode == 0, done.stderr
    return pred, gt


@pytest.mark.parametrize("victim", ["gt/drive_0/0000.png", "pred/drive_0/0001.png"])
def test_a_result_never_replaces_a_map(run_cli, pairs, tmp_path, victim):
    pred, gt = pairs(n=2)
    before = (tmp_path / victim).read_bytes()
    assert_one_sentence(run_cli("eval", pred, "--gt", gt, "-o", victim), 1, victim)
    assert (tmp_path / victim).read_bytes() == before


def test_a_result_replaces_an_earlier_result(run_cli, pairs, tmp_path):
    _evaluated(run_cli, pairs, "r.json", "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["schema_version"] == 1


def test_other_commands_never_write_onto_their_input(run_cli, pairs, tmp_path):
    pred, gt = _evaluated(run_cli, pairs, "a.json", "b.json")
    assert run_cli("data", "pack", "--gt", gt, "-o", "gt.h5").returncode == 0
    np.savez(tmp_path / "maps.npz", a=np.ones((4, 5), np.float32))
    commands = [
        ("compare", "a.json", "b.json", "-o", "./a.json"),
        ("data", "pack", "--gt", "gt.h5", "-o", tmp_path / "gt.h5"),
        ("data", "pack", "maps.npz", "-o", "maps.npz"),
        ("data", "pack", pred, "-o", pred),
        ("export-submission", "maps.npz", "--rehearsal", "-o", "maps.npz"),
    ]
    for arguments in commands:
        target = tmp_path / arguments[-1]
        before = target.read_bytes() if target.is_file() else None
        assert_one_sentence(run_cli(*arguments), 2, "would be replaced")
        assert before is None or target.read_bytes() == before


def test_a_device_stays_a_device(run_cli, pairs, tmp_path):
    pred, gt = pairs(n=1)
    os.mkfifo(tmp_path / "pipe")
    assert_one_sentence(run_cli("eval", pred, "--gt", gt, "-o", "pipe"), 1, "pipe")
    assert_one_sentence(run_cli("data", "splits", "export", "eigen", "-o", "pipe"), 1, "a device or a pipe")
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gt", "pipe", "pred"]


def test_a_link_stays_a_link(run_cli, pairs, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to("real/target.json")
    _evaluated(run_cli, pairs, "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real/target.json").read_text())["moment_table"]["file"] == "link.npz"
    assert not list((tmp_path / "real").glob(".*"))


def test_a_full_disk_between_table_and_json_keeps_both_old_files(pairs, tmp_path, monkeypatch):
    from adubench.errors import DataError
    from adubench.evaluators import result as module
    from adubench.evaluators.evaluator import evaluate

    pred, gt = pairs(n=2)
    results = evaluate(pred, gt=gt)
    module.save_results(results, tmp_path / "r.json")
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*r.*")}
    results[0].moments.values[:] += 1

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "to_json", full)
    with pytest.raises(DataError, match="No space left"):
        module.save_results(results, tmp_path / "r.json")
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*r.*")} == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("eval", LONG, "--gt", "gt"),
        ("eval", "pred", "--gt", LONG),
        ("eval", "pred", "--split", LONG + ".txt"),
        ("eval", "pred", "--split", "eigen", "--data-root", LONG),
        ("eval", "pred", "--gt", "gt", "-o", LONG + ".json"),
        ("compare", LONG, "b"),
        ("data", "check", "--dataset", "kitti", "--data-root", LONG),
        ("data", "pack", "--gt", LONG, "-o", "x.h5"),
        ("data", "pack", "pred", "-o", LONG + ".h5"),
        ("data", "splits", "show", LONG),
        ("data", "synth", LONG, "--drives", "1"),
        ("check-submission", LONG),
        ("export-submission", LONG, "--rehearsal", "-o", "x.zip"),
        ("export-submission", "pred", "--rehearsal", "-o", LONG + ".zip"),
    ],
)
def test_a_name_that_the_file_system_refuses_is_one_sentence(pairs, tmp_path, monkeypatch, capsys, arguments):
    from adubench.cli import main

    pairs(n=1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "too long" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gt", "pred"]


@pytest.mark.parametrize(
    "arguments",
    [("protocols",), ("data", "list"), ("list", "metrics"), ("data", "splits", "show", "eigen", "--frames")],
)
def test_a_reader_that_goes_away_is_no_fault(tmp_path, arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "adubench", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 0, err
    assert err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("arguments", [("protocols",), ("data", "splits", "show", "eigen", "--frames")])
def test_standard_output_on_a_full_disk_is_one_sentence(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "adubench", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert_one_sentence(done, 1, "No space left on device")


def test_shell_completion_knows_commands_and_options():
    def complete(words, position):
        env = os.environ | {"_ADUBENCH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
        code = "import sys; sys.argv[0] = 'adubench'; from adubench.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
        assert done.stderr == ""
        return done.stdout.split()

    assert "plain,eval" in complete("adubench ev", 1)
    assert "plain,--alignment" in complete("adubench eval --al", 2)


@pytest.mark.parametrize(("option", "value"), [("--png-scale", "inf"), ("--workers", "-3"), ("--cap", "nan")])
def test_numbers_that_make_no_sense_are_usage_errors(run_cli, pairs, option, value):
    pred, gt = pairs(n=1)
    assert_one_sentence(run_cli("eval", pred, "--gt", gt, option, value), 2, value.lstrip("-"))


def test_tables_in_a_pipe_are_wide_unless_columns_says_otherwise(run_cli):
    """Rich takes 80 columns where there is no terminal, which folds cells into a few characters each."""
    widths = {}
    for columns in ("", "90"):
        env = {"COLUMNS": columns} if columns else {}
        done = run_cli("list", "regions", env={"COLUMNS": ""} | env)
        assert done.returncode == 0, done.stderr
        widths[columns] = max(map(len, done.stdout.splitlines()))
    assert widths["90"] <= 90 < widths[""] <= 200
