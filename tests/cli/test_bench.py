"""`adubench bench`: what is measured, and what is said when it cannot be."""

import json

import pytest

torch = pytest.importorskip("torch")

from adubench.cli import main  # noqa: E402
from adubench.models.cost import newcrfs_flops, newcrfs_parameters  # noqa: E402
from adubench.training.bench import bench_evaluation, bench_loader, bench_model, timed, waiting_share  # noqa: E402
from tests.checkpoints import make_checkpoint  # noqa: E402
from tests.training.conftest import QUICK  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def run(capsys):
    def call(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["bench", *map(str, args)])
        said = capsys.readouterr()
        return stop.value.code or 0, said.out, said.err

    return call


def test_the_first_round_is_not_counted():
    calls = []
    found = timed(lambda: calls.append(1), 4, CPU)
    assert len(calls) == 5
    assert 0 <= found["min_ms"] <= found["ms"]


def test_a_network_by_name(run):
    status, out, _ = run(
        "model", "newcrfs:mini", "--size", "64x96", "--rounds", 3, "--train", "--device", "cpu", "--json"
    )
    assert status == 0
    found, config = json.loads(out), {"variant": "mini"}
    assert found["gflop"] == pytest.approx(sum(newcrfs_flops(config, 64, 96).values()) / 1e9)
    assert found["parameters"] == sum(newcrfs_parameters(config).values())
    assert found["forward"]["fps"] == pytest.approx(1000 / found["forward"]["ms"])
    assert found["flip"]["ms"] > 0
    assert found["train"]["samples_per_s"] > 0
    assert found["environment"]["threads"] == 1
    assert found["environment"]["torch"] == torch.__version__


def test_a_checkpoint_in_words(run, tmp_path):
    path = tmp_path / "mine.safetensors"
    make_checkpoint(path)
    args = ("--size", "64x96", "--batch", 2, "--rounds", 1, "--no-flip", "--device", "cpu")
    status, out, _ = run("model", path, *args)
    assert status == 0
    assert "mine, 2 x 64x96, fp32" in out
    assert "frames/s" in out
    assert "flip" not in out
    assert "threads 1" in out


def test_a_network_keeps_its_own_size(tmp_path):
    path = tmp_path / "mine.safetensors"
    make_checkpoint(path, {"family": "newcrfs", "variant": "mini", "input_size": [32, 64]})
    assert bench_model(str(path), rounds=1, flip=False, device="cpu")["size"] == [32, 64]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("model", "newcrf"), "newcrfs"),
        (("model", "newcrfs:tiny"), "tiny07"),
        (("model", "newcrfs:mini", "--device", "cpu", "--precision", "bf16"), "needs a CUDA device"),
        (("model", "newcrfs:mini", "--size", "64"), "HEIGHTxWIDTH"),
        (("model", "gone.safetensors"), "gone.safetensors"),
        (("loader", "demo", "--step-ms", "0"), "above 0"),
    ],
)
def test_faults_are_sentences(run, args, words):
    status, _, err = run(*args)
    assert status in (1, 2)
    assert words in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_loader(tmp_path):
    from adubench.datasets.synthdrive.writer import write_dataset
    from adubench.recipes.recipe import load_recipe

    root = tmp_path / "data"
    write_dataset(root, drives=4, frames=13, size=(64, 128))
    found = bench_loader(load_recipe("demo", list(QUICK)), root, batches=2, rounds=2)
    assert found["frames"] > 0
    assert found["samples_per_s"] == pytest.approx(1000 / found["ms_per_sample"])


def test_the_share_of_waiting():
    assert waiting_share(10, step_ms=400, batch=4) == 0
    assert waiting_share(10, step_ms=100, batch=4) == pytest.approx(0.75)


def test_an_evaluation_counts_its_images():
    calls = []
    found = bench_evaluation(lambda: calls.append(1) or 7, rounds=3)
    assert (found["images"], len(calls)) == (7, 4)
    assert found["images_per_s"] > 0
