"""Steps of TIE-KD, of its response baselines, and of the teachers AdaBins and BTS.

Students learn from `teacher` maps of the batch, see `teacher_map_data`; the baseline without a teacher and the teachers
themselves from `gt`. With several processes every loss is that of the whole batch: sums and counts are added before
anything is divided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from adubench.distillation.response import (
    RESPONSE_WEIGHTS,
    adabins_silog,
    bin_chamfer,
    bts_silog,
    response_kd_loss,
    si_loss,
)
from adubench.distillation.tie_kd import TieKDConfig, tie_kd_loss
from adubench.errors import UsageError, unknown_name
from adubench.models.densedepth import DenseDepth, bin_centres
from adubench.training.distributed import all_sum
from adubench.training.objectives import VALID, Objective

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from adubench.models.adabins import AdaBins, AdaBinsOutput
    from adubench.models.bts import BTS
    from adubench.models.interface import DepthNetwork

    Batch = Mapping[str, Any]

CHAMFER_WEIGHT = 0.1


def _teacher_of(batch: Batch) -> tuple[Tensor, Tensor]:
    if "teacher" not in batch:
        raise UsageError("this method learns from stored teacher maps: give their folder or file.")
    return batch["teacher"], batch["teacher_mask"]


class TieKD(Objective):
    """A student with depth bins that learns from a teacher's maps alone (TIE-KD).

    Args:
        network: a `DenseDepth` with the dpm head.
        config: of the loss.

    Raises:
        UsageError: a network without depth bins.
    """

    def __init__(self, network: DepthNetwork, config: TieKDConfig) -> None:
        if not isinstance(network, DenseDepth) or network.config["head"] != "dpm":
            raise UsageError("TIE-KD trains a densedepth student with head=dpm; response baselines take any student.")
        super().__init__(network)
        self.config = config

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return `loss` and its parts `l_dpm` and `l_depth`."""
        teacher, mask = _teacher_of(batch)
        output = self.network(batch["image"])
        found = tie_kd_loss(
            output.depth,
            output.probs,
            bin_centres(output.edges),
            teacher,
            self.config,
            mask=mask if self.config.rotate_teacher else None,
            all_reduce=all_sum,
        )
        return {"loss": found.total, "l_dpm": found.l_dpm, "l_depth": found.l_depth}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Depth, and the teacher's beside it."""
        return {**super().pictures(batch), "teacher": batch["teacher"]}


class ResponseKD(Objective):
    """A student that copies a teacher's maps: MSE, SI, SSIM or a sum of them.

    Args:
        network: answers `depth` (B, 1, H, W) at the input's size.
        kind: a name of `RESPONSE_WEIGHTS`.
        weight: None for the published one.
        warm_up: steps during which SI has no variance.

    Raises:
        UsageError: unknown kind.
    """

    def __init__(self, network: DepthNetwork, kind: str, *, weight: float | None = None, warm_up: int = 0) -> None:
        if kind not in RESPONSE_WEIGHTS:
            raise unknown_name("response loss", kind, RESPONSE_WEIGHTS)
        super().__init__(network)
        self.kind, self.weight, self.warm_up = kind, weight, warm_up

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return `loss`."""
        teacher, mask = _teacher_of(batch)
        depth = self.network(batch["image"]).depth
        loss = response_kd_loss(
            self.kind,
            depth,
            teacher,
            weight=self.weight,
            step=step,
            warm_up=self.warm_up,
            mask=mask,
            all_reduce=all_sum,
        )
        return {"loss": loss}

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Depth, and the teacher's beside it."""
        return {**super().pictures(batch), "teacher": batch["teacher"]}


class SparseSI(Objective):
    """TIE-KD's baseline without a teacher: SI against sparse ground truth (where it is above 0).

    Args:
        network: answers `depth` (B, 1, H, W) at the input's size.
        warm_up: steps without variance.
    """

    def __init__(self, network: DepthNetwork, *, warm_up: int = 0) -> None:
        super().__init__(network)
        self.warm_up = warm_up

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return `loss` and `n_valid`."""
        depth, gt = self.network(batch["image"]).depth, batch["gt"]
        loss = si_loss(depth, gt, step=step, warm_up=self.warm_up, all_reduce=all_sum)
        return {"loss": loss, VALID: _count(gt > 0)}


class AdaBinsTraining(Objective):
    """AdaBins from ground truth: SILog and a tenth of the bins' chamfer distance."""

    def __init__(self, network: AdaBins) -> None:
        super().__init__(network)
        self.toolbox = network.config["layout"] == "toolbox"
        self.min_depth = float(network.config["min_depth"])

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return `loss`, its parts `silog` and `chamfer`, and `n_valid`."""
        output = cast("AdaBinsOutput", self.network(batch["image"]))
        gt = batch["gt"]
        if self.toolbox:
            depth = torch.nn.functional.interpolate(output.depth, gt.shape[-2:], mode="bilinear", align_corners=True)
            silog = si_loss(depth, gt, weight=10.0, all_reduce=all_sum)
        else:
            silog = adabins_silog(output.depth, gt, min_depth=self.min_depth, all_reduce=all_sum)
        chamfer = bin_chamfer(output.edges, gt, min_depth=self.min_depth, all_reduce=all_sum)
        loss = silog + CHAMFER_WEIGHT * chamfer
        return {"loss": loss, "silog": silog, "chamfer": chamfer, VALID: _count(gt > self.min_depth)}


class BTSTraining(Objective):
    """BTS from ground truth: silog of the final depth, with the focal lengths of the batch where it has any.

    Args:
        network: BTS; its encoder's first convolution and norms are frozen, as published.
        min_gt: metres, 1.0 on KITTI, 0.1 on NYU.
    """

    def __init__(self, network: BTS, *, min_gt: float = 1.0) -> None:
        super().__init__(network)
        self.min_gt = min_gt
        network.freeze_as_published()

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return `loss` and `n_valid`."""
        depth = self.network(batch["image"], batch.get("focal")).depth
        loss = bts_silog(depth, batch["gt"], min_gt=self.min_gt, all_reduce=all_sum)
        return {"loss": loss, VALID: _count(batch["gt"] > self.min_gt)}


def _count(valid: Tensor) -> Tensor:
    return all_sum(valid.sum().float())
