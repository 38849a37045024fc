"""Maps of images that regions are made of: repeated texture against plain loops, and what they cost."""

import numpy as np

from adubench.evaluators import depth_edges, image_regions
from adubench.io.maps import DepthMap, SparseDepth


def _plain_repeated(rgb):
    """The definition with loops over pixels."""
    y = image_regions.luma(rgb)
    height, width = y.shape
    out = np.zeros((height, width), bool)

    def ncc(r, a, b):
        p, q = (y[r - 4 : r + 5, c - 4 : c + 5] for c in (a, b))
        if p.std() < 0.02 or q.std() < 0.02:
            return 0.0
        return float(np.clip(((p - p.mean()) * (q - q.mean())).mean() / (p.std() * q.std()), -1, 1))

    for r in range(4, height - 4):
        for x in range(4, width - 4):
            for sign in (1, -1):
                low = np.inf
                for d in range(1, 49):
                    if not 4 <= x + sign * d < width - 4:
                        break
                    c = ncc(r, x, x + sign * d)
                    if d >= 4 and c >= 0.9 and low <= 0:
                        out[r, x] = True
                    low = min(low, c)
    return out


def test_repeated_texture_against_plain_loops():
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 60, (13, 64, 3), dtype=np.uint8)
    rgb[:, 10:45] += (90 * (np.arange(35) % 12 < 6)).astype(np.uint8)[None, :, None]
    rgb[:, 50:] = 120  # plain
    expected = _plain_repeated(rgb)
    assert 0 < expected.sum() < expected.size / 2
    np.testing.assert_array_equal(image_regions.repeated(rgb), expected)
    rows = image_regions.repeated(rgb, rows=(5, 7))
    np.testing.assert_array_equal(rows[5:7], expected[5:7])
    assert not rows[7:].any()


def test_costs_of_a_full_image():
    """CPU seconds for 375 x 1242; bounds are those of the definitions' reference machine, best of three."""
    from time import process_time

    rng = np.random.default_rng(0)
    dense = np.kron(rng.uniform(4, 80, (25, 54)), np.ones((15, 23))).astype(np.float32)
    sparse = np.where(rng.random(dense.shape) < 0.16, dense, 0)
    rgb = rng.integers(0, 255, (*dense.shape, 3), dtype=np.uint8)

    def listed(gt):
        return SparseDepth.from_map(DepthMap(gt))

    def cost(call, *args):
        times = []
        for _ in range(3):
            start = process_time()
            call(*args)
            times.append(process_time() - start)
        return min(times)

    assert cost(depth_edges.depth_edges, listed(sparse), (5, 5)) < 0.04
    assert cost(depth_edges.depth_edges, listed(dense), (1, 1)) < 0.26
    assert cost(image_regions.lightness, rgb) < 0.07
    assert cost(image_regions.texture, rgb) < 0.05
    assert cost(image_regions.repeated, rgb) < 0.6
