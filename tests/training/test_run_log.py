"""The log and the progress: one line per step, none twice, nothing lost with the process."""

import json
import sys

import pytest

torch = pytest.importorskip("torch")

from adubench.errors import DataError  # noqa: E402
from adubench.training.progress import Progress, memory_bytes  # noqa: E402
from adubench.training.run_log import RunLog  # noqa: E402

VALUES = {"loss": 1.25, "base": 1.0, "response": 0.25, "n_valid": 10.0, "grad_norm": 2.0, "seconds": 0.5}


def test_lines_are_on_the_disk_at_once_and_cut_to_the_step(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path)
    for step in range(1, 6):
        log.write("step", step, {"loss": float(step), "nan": float("nan")})
        assert len(path.read_text().splitlines()) == step
    with path.open("a") as file:
        file.write('{"event": "step", "st')  # killed in the middle of a line
    again = RunLog(path, step=3)
    again.write("step", 4, {"loss": 4.5})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5)]
    assert lines[0]["nan"] is None
    again.close()
    log.close()
    RunLog(path).close()
    assert path.read_text() == ""


def test_a_full_disk_is_a_sentence(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")

    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

    log._file = Full()
    with pytest.raises(DataError, match=r"log\.jsonl: No space left on device"):
        log.write("step", 1, {})


def test_plain_lines_come_every_so_often(capsys):
    with Progress("demo, student", 10, every=4) as progress:
        for step in range(1, 11):
            progress.step(step, VALUES, rate=8.0, lr=1e-4)
        progress.say("a sentence")
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == ""
    assert [line.split()[3] for line in lines[:-1]] == ["4/10", "8/10", "10/10"]
    for words in ("loss 1.25", "response 0.25", "8 samples/s", "GiB", "lr 1.00e-04", "0:00:03 left"):
        assert words in lines[0]
    assert "grad_norm" not in lines[0]
    assert lines[-1] == "a sentence"


def test_other_processes_say_nothing(capsys):
    with Progress("demo", 2, every=1, quiet=True) as progress:
        progress.step(1, VALUES, rate=1.0, lr=1.0)
        progress.say("x")
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_live_line(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("demo, student", 3) as progress:
        progress.start_at(1)
        progress.step(2, VALUES, rate=8.0, lr=1e-4)
        progress.say("validation: [red] is no markup")
    said = capsys.readouterr().err
    assert "validation: [red] is no markup" in said
    assert "demo, student" in said


def test_memory_is_that_of_this_process():
    assert 10_000_000 < memory_bytes() < 1 << 40
