"""Run the examples of the documentation and put their real output below the commands.

In a ```console block a line that starts with `$ ` is a command (`\\` at its end continues it), the rest is its output.
An output that ends with a line `...` is cut to as many lines as it had. `<!-- setup: COMMAND -->` runs without being
shown. The commands of one document share an empty working folder.

python -m benchmarks.make_examples README.md docs/cli.md
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"^(```console\n)(.*?)(^```$)|^<!-- setup: (.*?) -->$", re.DOTALL | re.MULTILINE)


def split_block(body: str) -> list[tuple[str, list[str]]]:
    """Return (command as written, lines of its output) for every command of a block."""
    found: list[tuple[str, list[str]]] = []
    open_command = False
    for line in body.splitlines():
        if open_command:
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        elif line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
        open_command = line.endswith("\\")
    return found


def run(command: str, folder: Path) -> list[str]:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "110",
        "ADUBENCH_CACHE": str(folder / ".cache"),
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return [line.rstrip() for line in done.stdout.rstrip().splitlines()]


def renew(text: str, folder: Path) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[4]:
            print(f"setup: {match[4]}", flush=True)
            run(match[4], folder)
            return match[0]
        out = []
        for command, before in split_block(match[2]):
            print(f"$ {command}", flush=True)
            lines = run(command, folder)
            if before and before[-1] == "..." and len(lines) >= len(before):
                lines = [*lines[: len(before) - 1], "..."]
            out += [f"$ {command}", *lines]
        return match[1] + "\n".join(out) + "\n" + match[3]

    return BLOCK.sub(replace, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("documents", nargs="+", type=Path)
    options = parser.parse_args()
    for document in options.documents:
        with tempfile.TemporaryDirectory() as folder:
            text = renew(document.read_text(encoding="utf-8"), Path(folder))
        document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
