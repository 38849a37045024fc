"""Small results with known properties, made without files, for the tests of comparison and tables."""

from __future__ import annotations

import numpy as np

from adubench.evaluators.metrics import metrics_from_moments
from adubench.evaluators.moments import MOMENTS, frame_moments
from adubench.evaluators.protocols import get_protocol
from adubench.evaluators.result import EvaluationResult, MomentTable

FAR_M = 60.0


def make_result(
    label: str,
    seed: int = 0,
    *,
    bias: float = 0.0,
    drives: int = 8,
    per_drive: int = 4,
    protocol: str = "kitti-eigen",
    split: str | None = "eigen_test",
    regions: tuple[str, ...] = ("all",),
    drop: tuple[int, ...] = (),
    gt_seed: int = 0,
) -> EvaluationResult:
    """A result of `drives` x `per_drive` frames; `bias` shifts the log error, `drop` leaves out frames by position."""
    truth, noise = np.random.default_rng(gt_seed), np.random.default_rng(seed + 1)
    frames, names, values = [], [], []
    for i in range(drives * per_drive):
        drive = f"2011_09_26_drive_{i // per_drive:04d}"
        if i % per_drive == 0:
            shift = noise.normal(0, 0.02)
        gt = truth.uniform(2, 70, 150 + 10 * (i % 3)).astype(np.float32)
        pred = (gt * np.exp(noise.normal(bias + shift, 0.08, gt.size))).astype(np.float32)
        far = gt > FAR_M
        rows = [frame_moments(gt, pred), frame_moments(gt[far], pred[far])][: len(regions)]
        if i not in drop:
            frames.append(f"{drive}_sync/image_02/{i % per_drive:010d}")
            names.append(drive)
            values.append(rows)
    table = np.array(values)
    assert table.shape[1:] == (len(regions), len(MOMENTS))
    metrics = metrics_from_moments(table[:, 0])
    record = get_protocol(protocol)
    mean = {key: float(column.mean()) for key, column in metrics.items()}
    pooled = {key: float(v) for key, v in metrics_from_moments(table[:, 0].sum(axis=0)).items()}
    return EvaluationResult(
        protocol=record.to_dict() | {"fingerprint": record.fingerprint},
        split=split,
        counts={
            "expected": drives * per_drive,
            "evaluated": len(frames),
            "missing_prediction": len(drop),
            "empty_ground_truth": 0,
            "invalid_values": 0,
            "n_pixels": int(table[:, 0, 0].sum()),
        },
        provenance={"partial": bool(drop), "ground_truth_kind": "improved PNG"},
        summary=mean,
        aggregates={"image_mean": mean, "pooled": pooled},
        per_image={"frame": frames, "drive": names, "n_pixels": [int(n) for n in table[:, 0, 0]]}
        | {key: [float(v) for v in column] for key, column in metrics.items()},
        moments=MomentTable(tuple(frames), tuple(names), regions, table),
        label=label,
    )
