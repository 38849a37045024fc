"""A second, plain evaluation, written from the definitions of protocols and metrics; shares no code with adubench.

Slow and simple on purpose: one image, dense arrays, float32 masks and clamps, float64 two-pass metrics.
"""

import numpy as np

CROPS = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "none": (0.0, 1.0, 0.0, 1.0),
}
WINDOW = (352, 1216)
F32 = np.float32

# name -> (frame, lower and upper limit of the truth, crop, clamp, alignment)
RULES = {
    "kitti-eigen": ("window", 1e-3, 80, "garg", (1e-3, 80), "none"),
    "kitti-eigen-full": ("full", 1e-3, 80, "garg", (1e-3, 80), "none"),
    "kitti-eigen-toolbox": ("window", 1e-3, 80, "garg", None, "none"),
    "kitti-eigen-raw": ("full", 1e-3, 80, "garg", (1e-3, 80), "median"),
    "kitti-eigen-benchmark": ("full", 0, np.inf, "none", (1e-3, 80), "median"),
    "kitti-mdb": ("full", 1e-3, 100, "none", (1e-3, 100), "median"),
    "full-frame": ("full", 0, np.inf, "none", None, "none"),
    "synthdrive": ("full", 1e-3, 80, "garg", (1e-3, 80), "none"),
}


def corner(shape):
    """Top and left of the window in an image."""
    return shape[0] - WINDOW[0], (shape[1] - WINDOW[1]) // 2


def cut(array):
    """The window of an image."""
    top, left = corner(array.shape)
    return array[top : top + WINDOW[0], left : left + WINDOW[1]]


def paste(array, shape, fill=0.0):
    """An image of `shape` with the window's values in it."""
    out = np.full(shape, fill, F32)
    cut(out)[:] = array
    return out


def rectangle(shape, crop):
    """The mask of a crop."""
    r0, r1, c0, c1 = CROPS[crop]
    mask = np.zeros(shape, bool)
    mask[int(r0 * shape[0]) : int(r1 * shape[0]), int(c0 * shape[1]) : int(c1 * shape[1])] = True
    return mask


def bilinear(array, shape):
    """Resize as OpenCV's INTER_LINEAR does."""
    out = array.astype(np.float64)
    for axis, target in ((1, shape[1]), (0, shape[0])):
        n = out.shape[axis]
        s = np.clip((np.arange(target) + 0.5) * n / target - 0.5, 0, n - 1)
        low = np.floor(s).astype(int)
        high = np.minimum(low + 1, n - 1)
        t = (s - low)[None, :] if axis == 1 else (s - low)[:, None]
        out = np.take(out, low, axis) * (1 - t) + np.take(out, high, axis) * t
    return out.astype(F32)


def align(name, g, p):
    """Scale a prediction to the truth."""
    if name == "median":
        return p * F32(np.median(g.astype(np.float64)) / np.median(p.astype(np.float64)))
    if name.startswith("fixed:"):
        return p * F32(name[6:])
    if name == "lstsq":
        x, y = 1 / p.astype(np.float64), 1 / g.astype(np.float64)
        a, b = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]
        q = a * x + b
        return np.where(q > 0, 1 / np.where(q > 0, q, 1), 0).astype(F32)
    return p


def metrics(g, p):
    """All core metrics in float64."""
    g, p = g.astype(np.float64), p.astype(np.float64)
    e, log = p - g, np.log(p) - np.log(g)
    ratio, v = np.maximum(p / g, g / p), 1 / p - 1 / g
    return {
        "n_pixels": g.size,
        "abs_rel": np.mean(np.abs(e) / g),
        "sq_rel": np.mean(e**2 / g),
        "sq_rel_gt2": np.mean(e**2 / g**2),
        "rmse": np.sqrt(np.mean(e**2)),
        "rmse_log": np.sqrt(np.mean(log**2)),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(g))),
        "silog": 100 * np.std(log),
        "mae": np.mean(np.abs(e)),
        "imae": 1000 * np.mean(np.abs(v)),
        "irmse": 1000 * np.sqrt(np.mean(v**2)),
        "log_mae": np.mean(np.abs(log)),
        "d1": np.mean(ratio < 1.25),
        "d2": np.mean(ratio < 1.25**2),
        "d3": np.mean(ratio < 1.25**3),
    }


def evaluate(protocol, gt, pred, *, crop=None, cap=None, alignment=None):
    """Score one float32 depth map [h, w] against one truth [H, W]; `pred` may be of the window's size."""
    frame, low, high, own_crop, clamp, own_alignment = RULES[protocol]
    crop, alignment = crop or own_crop, alignment or own_alignment
    if cap is not None:  # the references have one `max_depth_eval` for the mask and the clamp
        high, clamp = cap, clamp and (clamp[0], cap)
    g, p = gt.astype(F32), pred.astype(F32)
    if frame == "window":
        g = cut(g)
        p = p if p.shape == WINDOW else cut(p)
    elif p.shape == WINDOW and g.shape != WINDOW:
        p = paste(p, g.shape)
    with np.errstate(invalid="ignore"):
        valid = rectangle(g.shape, crop) & (g > F32(low)) & (g < F32(high))
    g, p = g[valid], p[valid]
    if protocol == "full-frame" or clamp is None:
        return metrics(g, align(alignment, g, p))
    p = align(alignment, g, p)
    p = np.where(p < F32(clamp[0]), F32(clamp[0]), p)
    p = np.where(p > F32(clamp[1]), F32(clamp[1]), p)
    return metrics(g, np.where(np.isnan(p), F32(clamp[0]), p))
