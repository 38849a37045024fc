"""Commands side by side: who stops the parent stops them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

_PARENT = """
    import sys
    from adubench.commands import _side_by_side
    _side_by_side.sys = type("Fake", (), {"executable": sys.argv[1]})
    _side_by_side.run_together([["a"], ["b"]])
"""
# In the place of Python: says that it is there, and saves when it is asked to stop.
_CHILD = """\
#!/bin/sh
trap 'touch saved-$3; exit 143' TERM
echo $$ > pid-$3.tmp; mv pid-$3.tmp pid-$3
while :; do sleep 0.05; done
"""


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core runs one command after the other")
def test_sigterm_reaches_the_commands_and_waits_for_them(tmp_path):
    child = tmp_path / "child"
    child.write_text(_CHILD)
    child.chmod(0o755)
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(_PARENT), str(child)], cwd=tmp_path)
    files = [tmp_path / "pid-a", tmp_path / "pid-b"]
    try:
        deadline = time.monotonic() + 20
        while not all(file.is_file() for file in files) and time.monotonic() < deadline:
            time.sleep(0.02)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=20) == 143
    finally:
        parent.kill()
    assert (tmp_path / "saved-a").is_file()
    assert (tmp_path / "saved-b").is_file()
    for file in files:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
