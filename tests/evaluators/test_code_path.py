"""16-bit maps are summed straight from their codes, and packs store one protocol's pixels first: the numbers stay."""

import dataclasses

import numpy as np
import pytest

from adubench.evaluators import moments
from adubench.evaluators.evaluator import EvalOptions, evaluate
from adubench.evaluators.predicted_values import Prediction
from adubench.evaluators.protocols import PROTOCOLS, get_protocol
from adubench.evaluators.scoring import score_frame
from adubench.evaluators.valid_pixels import selection_mask
from adubench.io.maps import DepthMap, SparseDepth
from adubench.io.packed import PackWriter, open_pack

SHAPE = (375, 1242)


def _maps(seed, zeros=0):
    rng = np.random.default_rng(seed)
    gt = (rng.uniform(2, 95, SHAPE) * 256 * (rng.random(SHAPE) < 0.05)).astype(np.uint16)
    pred = (
        (gt.astype(float) * rng.lognormal(0, 0.2, SHAPE) + rng.integers(0, 3000, SHAPE))
        .clip(1, 65535)
        .astype(np.uint16)
    )
    pred.reshape(-1)[rng.integers(0, pred.size, zeros)] = 0
    return SparseDepth.from_map(DepthMap(gt, 256.0)), DepthMap(pred, 256.0)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", sorted(set(PROTOCOLS) - {"nyu", "kitti-official"}))
def test_codes_and_metres_give_the_same_sums(name, compiled):
    protocol = get_protocol(name)
    if compiled:
        pytest.importorskip("numba")
    moments.use_compiled(compiled)
    try:
        for seed in range(2):
            gt, pred = _maps(seed, zeros=5000 if protocol.clamp else 0)
            through_codes = score_frame(protocol, gt, Prediction(pred))
            metres = DepthMap(pred.quantity())
            through_metres = score_frame(
                protocol, dataclasses.replace(gt, values=gt.metres(), scale=1.0), Prediction(metres)
            )
            assert np.allclose(through_codes.moments, through_metres.moments, rtol=1e-12, atol=0)
            assert np.array_equal(through_codes.moments[[0, 11, 12, 13]], through_metres.moments[[0, 11, 12, 13]])
            assert through_codes.n_invalid == through_metres.n_invalid
    finally:
        moments.use_compiled(False)


def test_a_scale_that_is_no_power_of_two_takes_the_long_way():
    """code / 1000 in float32 is not code * (1 / 1000): only exact scales may skip the conversion."""
    gt, pred = _maps(0)
    protocol = get_protocol("kitti-eigen-full")
    gt, pred = dataclasses.replace(gt, scale=1000.0), DepthMap(pred.values, 1000.0)
    want = score_frame(
        protocol, dataclasses.replace(gt, values=gt.metres(), scale=1.0), Prediction(DepthMap(pred.quantity()))
    )
    assert np.array_equal(score_frame(protocol, gt, Prediction(pred)).moments, want.moments)


@pytest.fixture
def packs(tmp_path):
    """Four frames as packs: truth with and without a protocol first, predictions dense and at its pixels."""
    protocol = get_protocol("kitti-eigen-full")
    frames = {f"drive/{i:04d}": _maps(i, zeros=100) for i in range(4)}
    paths = {name: tmp_path / f"{name}.h5" for name in ("plain", "first", "dense", "at_plain", "at_first")}
    for name, first in (("plain", ""), ("first", protocol.selection)):
        with PackWriter(paths[name], "ground_truth", first=first) as writer:
            for frame, (gt, _) in frames.items():
                writer.add(frame, gt, first_mask=selection_mask(protocol, gt) if first else None)
        sha = open_pack(paths[name]).attrs["index_sha256"]
        with PackWriter(paths[f"at_{name}"], "at_ground_truth", first=first, ground_truth_sha256=sha) as writer:
            for frame, (gt, pred) in frames.items():
                mask = selection_mask(protocol, gt) if first else None
                writer.add(frame, pred.values.reshape(-1)[gt.index], first_mask=mask, scale=pred.scale)
    with PackWriter(paths["dense"], "prediction") as writer:
        for frame, (_, pred) in frames.items():
            writer.add(frame, pred)
    return paths


@pytest.mark.parametrize("name", ["kitti-eigen-full", "kitti-eigen", "kitti-eigen-benchmark", "full-frame"])
def test_every_kind_of_pack_gives_the_same_result(packs, name):
    options = EvalOptions(cache="off", compat=True)
    results = {
        (source, gt): evaluate(packs[source], gt=packs[gt], protocol=name, options=options)[0]
        for source, gt in (
            ("dense", "plain"),
            ("dense", "first"),
            ("at_plain", "plain"),
            ("at_first", "first"),
            ("at_first", "plain"),
        )
    }
    first = results["dense", "plain"]
    for result in results.values():
        assert result.per_image["n_pixels"] == first.per_image["n_pixels"]
        assert np.allclose(result.moments.values, first.moments.values, rtol=1e-12)
        assert result.provenance["data_fingerprint"] == first.provenance["data_fingerprint"]
        assert result.counts == first.counts


def test_the_pixels_stored_first_are_the_protocols(packs):
    protocol = get_protocol("kitti-eigen-full")
    with open_pack(packs["first"]) as pack, open_pack(packs["at_first"]) as values:
        for name in pack.names:
            whole, part = pack.read(name), pack.read_first(name)
            mask = selection_mask(protocol, whole)
            assert np.array_equal(part.index, whole.index[mask])
            assert np.array_equal(pack.read_first(name, positions=False).values, whole.values[mask])
            assert pack.signature(name) == whole.signature()
            assert np.array_equal(values.read_first(name).values, values.read(name).values[mask])


def test_values_at_the_pixels_of_another_truth_are_refused(packs, tmp_path):
    from adubench.errors import DataError

    gt, _ = _maps(9)
    with PackWriter(tmp_path / "other.h5", "ground_truth") as writer:
        for i in range(4):
            writer.add(f"drive/{i:04d}", gt)
    with pytest.raises(DataError, match="another ground truth"):
        evaluate(packs["at_plain"], gt=tmp_path / "other.h5", options=EvalOptions(cache="off"))
