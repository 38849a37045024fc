"""Run every benchmark and keep the reports: `python -m benchmarks` (or `make bench`)."""

import subprocess
import sys

NAMES = ("evaluation", "startup", "export", "bootstrap", "regions", "synthdrive", "adapters", "loader", "network")

if __name__ == "__main__":
    for name in NAMES:
        print(f"== {name}", flush=True)
        output = f"benchmarks/results/{name}.json"
        subprocess.run([sys.executable, "-m", f"benchmarks.bench_{name}", "-o", output], check=True)
