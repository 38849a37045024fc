"""Commands run in this process: torch is imported once for all tests that need it."""

from dataclasses import dataclass

import pytest


@dataclass
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Run `adubench ARGS` in this process, in the test's own folder."""
    from adubench.cli import main

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        out = capsys.readouterr()
        return Done(int(ended.value.code or 0), out.out, out.err)

    return run
