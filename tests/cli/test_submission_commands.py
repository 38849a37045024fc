"""export-submission and check-submission as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from adubench.cli import cli, main
from adubench.io.png import encode_grey16
from tests.submissions.helpers import codes, good, png, scene, write_zip


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run a command in this process and return (status, stdout, stderr)."""

    def call(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in args])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "gt").mkdir()
    for i in range(4):
        (tmp_path / "gt" / f"{i:010d}.png").write_bytes(encode_grey16(codes(i) * (codes(i) % 5 == 0)))
    return write_zip(tmp_path / "s.zip", good())


def test_export_then_check(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "p").mkdir()
    for i in range(4):
        np.save(tmp_path / "p" / f"{i:010d}.npy", scene(i))
    status, out, err = run("export-submission", tmp_path / "p", "--rehearsal", "-o", tmp_path / "s.zip")
    assert (status, err) == (0, "")
    assert "rehearsal (any count and size; no server takes it); 4 maps" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p", "s.manifest.json", "s.zip"]
    status, out, err = run("check-submission", tmp_path / "s.zip", "--rehearsal", "--strict")
    assert (status, err) == (0, "")
    assert "good: 0 errors, 0 warnings (strict)" in out


def test_every_problem_is_listed_with_its_file(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    members = {**good(), "0000000001.png": b"hello", "notes.txt": b"x", "0000000003.png": png(3, (10, 10))}
    del members["0000000002.png"]
    status, out, err = run("check-submission", write_zip(tmp_path / "s.zip", members))
    assert (status, err) == (1, "")
    for text in ("error S03", "error S04 unexpected entries: notes.txt", "error S09 0000000001.png", "error S14"):
        assert text in out
    assert "not acceptable" in out


def test_of_many_alike_the_rest_is_named(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    members = {f"{i:010d}.png": b"text" for i in range(40)}
    status, out, _ = run("check-submission", write_zip(tmp_path / "s.zip", members), "--rehearsal")
    assert status == 1
    assert "error S09 the same in 20 more files: 0000000020.png .. 0000000039.png" in out


def test_scores_are_printed(run, tmp_path: Path, package: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = run("check-submission", package, "--rehearsal", "--gt", tmp_path / "gt")
    assert status == 0
    for text in ("SILog", "sqErrorRel", "absErrorRel", "iRMSE", "scale invariant log", "0000000003.png", "1/km"):
        assert text in out


def test_json(run, tmp_path: Path, package: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = run("check-submission", package, "--rehearsal", "--gt", tmp_path / "gt", "--json")
    report = json.loads(out)
    assert status == 0
    assert report["ok"]
    assert report["scores"]["leaderboard"] == {"SILog": 0.0, "sqErrorRel": 0.0, "absErrorRel": 0.0, "iRMSE": 0.0}
    assert len(report["scores"]["per_file"]) == 4
    status, out, _ = run("check-submission", package, "--json")
    report = json.loads(out)
    assert status == 1
    assert {f["code"] for f in report["findings"]} == {"S03", "S14"}


def test_strict_makes_warnings_faults(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = write_zip(tmp_path / "s.zip", {**good(), "0000000003.png": png(0)})
    assert run("check-submission", path, "--rehearsal")[0] == 0
    assert run("check-submission", path, "--rehearsal", "--strict")[0] == 1


def test_usage(run, package: Path) -> None:  # type: ignore[no-untyped-def]
    for args in (
        ("check-submission", package, "--kind", "completion", "--rehearsal"),
        ("check-submission", package, "--compat", "devkit"),
        ("check-submission", package, "--kind", "depth"),
        ("check-submission",),
        ("export-submission", package, "--input", "scaled-disparity"),
    ):
        status, out, err = run(*args)
        assert status == 2, args
        assert out == ""
        assert "rror" in err


def test_faults_are_one_sentence(run, tmp_path: Path, package: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    for args in (
        ("check-submission", tmp_path / "none.zip"),
        ("check-submission", package, "--gt", tmp_path / "none"),
        ("export-submission", tmp_path / "none", "-o", tmp_path / "o.zip"),
        ("export-submission", tmp_path / "empty", "-o", tmp_path / "o.zip"),
        ("export-submission", package, "-o", tmp_path / "o.zip"),
        ("export-submission", package, "--rehearsal", "-o", tmp_path / "empty"),
        ("export-submission", package, "--rehearsal", "--images", tmp_path / "empty", "-o", tmp_path / "o.zip"),
    ):
        status, out, err = run(*args)
        assert status == 1, args
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert not (tmp_path / "o.zip").exists()


def test_hostile_archive_is_refused_with_a_sentence(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = write_zip(tmp_path / "s.zip", {**good(), "../evil.png": png(9)})
    status, out, _ = run("check-submission", path, "--rehearsal")
    assert status == 1
    assert "error S02 '../evil.png' points outside the folder it would be unpacked to; refused" in out
    assert "refused: " in out
    assert not (tmp_path.parent / "evil.png").exists()


def test_every_kind_and_input_of_the_command_exists() -> None:
    from adubench.commands import check_submission, export_submission
    from adubench.submissions.encoding import INPUTS, ON_INVALID, QUANTIZE
    from adubench.submissions.kitti import CHECKED_KINDS, TARGETS

    def choices(command: object, name: str) -> set[str]:
        return set(next(p for p in command.params if p.name == name).type.choices)  # type: ignore[attr-defined]

    assert choices(export_submission.command, "kind") == set(TARGETS)
    assert choices(check_submission.command, "kind") == set(CHECKED_KINDS)
    assert choices(export_submission.command, "input_kind") == set(INPUTS)
    assert choices(export_submission.command, "on_invalid") == set(ON_INVALID)
    assert choices(export_submission.command, "quantize") == set(QUANTIZE)


def test_help_shows_an_example() -> None:
    for verb in ("export-submission", "check-submission"):
        result: Result = CliRunner().invoke(cli, [verb, "--help"])
        assert result.exit_code == 0
        assert f"Example: adubench {verb}" in " ".join(result.output.split())


def test_no_heavy_library_is_imported(tmp_path: Path, package: Path) -> None:
    script = (
        "import sys\nfrom adubench.cli import main\n"
        f"try:\n main(['export-submission', {str(package)!r}, '--rehearsal', '-o', {str(tmp_path / 'o.zip')!r}])\n"
        "except SystemExit as stop:\n assert stop.code == 0\n"
        "heavy = {'torch', 'cv2', 'pandas', 'matplotlib', 'scipy.stats', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "o.zip") as archive:
        assert len(archive.namelist()) == 4


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_read_only_folder(run, tmp_path: Path, package: Path) -> None:  # type: ignore[no-untyped-def]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    status, _, err = run("export-submission", package, "--rehearsal", "-o", closed / "o.zip")
    assert status == 1
    assert "cannot write" in err
    assert list(closed.iterdir()) == []


def test_interrupt_in_the_middle(tmp_path: Path) -> None:
    # A sparse file: 400 maps of zeros that take no disk and about ten seconds to export.
    np.lib.format.open_memmap(tmp_path / "stack.npy", "w+", np.float32, (400, 352, 1216)).flush()
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["export-submission", "stack.npy", "--rehearsal", "--on-invalid", "min", "-o", "out/s.zip"]
    process = subprocess.Popen(
        [sys.executable, "-m", "adubench", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size for p in out.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "interrupted: nothing half-written was left behind."
    assert list(out.iterdir()) == []
