"""How fast SynthDrive renders and writes: frames per second of CPU time on one core, without and with everything else.

python benchmarks/bench_synthdrive.py [-o report.json]
"""

from __future__ import annotations

from benchmarks import harness  # isort: skip  (limits threads, so it comes before numpy)

import argparse
import tempfile
from typing import Any

from adubench.datasets.synthdrive import write_dataset
from adubench.datasets.synthdrive.lightmap import bake
from adubench.datasets.synthdrive.renderer import render
from adubench.datasets.synthdrive.rig import kitti_rig
from adubench.datasets.synthdrive.scene import make_scene
from adubench.datasets.synthdrive.world import make_world

GOALS = {"96x320": 10.0, "375x1242": 1.0}  # frames/s of one camera
SIZES = {"96x320": (96, 320), "375x1242": (375, 1242)}


def measure(rounds: int) -> dict[str, Any]:
    """Render one camera of one frame of each of the three scenes per round; write a data set once."""
    jobs, objects = {}, {}
    for name, size in SIZES.items():
        for number in (1, 2, 3):
            world, rig = make_world(0, number, 24), kitti_rig(size)
            light = bake(world, 0.2)
            objects[world.scene] = len({body.thing for body in make_scene(world, 3).bodies}) - 1
            jobs[f"{name} {world.scene}"] = lambda w=world, r=rig, m=light: render(make_scene(w, 3), r, 3, 2, m)

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_dataset(f"{folder}/data", drives=3, frames=12, size=(96, 320))

    jobs["write 3 x 12 stereo frames 96x320"] = write
    report = harness.run_interleaved(jobs, rounds)
    rates = {
        name: 1 / entry["cpu_median_s"] for name, entry in report["contestants"].items() if not name.startswith("write")
    }
    slowest = {size: min(rate for name, rate in rates.items() if name.startswith(f"{size} ")) for size in SIZES}
    report |= {"objects_in_view": objects, "frames_per_cpu_second": rates, "slowest_scene": slowest, "goals": GOALS}
    report["goals_met"] = all(slowest[size] >= goal for size, goal in GOALS.items())
    return report


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    harness.write_json(measure(options.rounds), options.output)


if __name__ == "__main__":
    main()
