"""Two steps of training, from images to updated weights, against the original trainers.

The systems are put together here from the public parts, so that a wrong sign, order or mode in any of them shows.
"""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from adubench.distillation.sub_depth import (  # noqa: E402
    SubDepthConfig,
    distillation_loss,
    log_mean_sigma,
    log_sigma,
    reconstruction_loss,
    set_teacher_mode,
)
from adubench.models import zoo  # noqa: E402
from adubench.models.pose import build_pose  # noqa: E402
from adubench.models.sub_depth import PhotometricUncertainty  # noqa: E402
from adubench.training.photometric import PhotometricConfig, Views, photometric_losses, total_loss  # noqa: E402
from adubench.training.view_synthesis import Cameras, pose_matrix  # noqa: E402
from tests.self_supervised import arrays, close, mostly_close, recipe, values, without_classifier  # noqa: E402

SYSTEMS = {
    "monodepth2": None,
    "sub_depth_teacher_train_mode": SubDepthConfig("cross_batch", "train", 0.0),
    "sub_depth_teacher_eval_mode": SubDepthConfig("cross_batch", "eval", 0.0),
}
FRAMES = (0, -1, 1)


class System:
    """Networks, optimiser, and what one step computes."""

    def __init__(self, name):
        self.config = SYSTEMS[name]
        self.table = values("training_step_values")
        self.network = zoo.build({"family": "sub-depth" if self.config else "monodepth2"})
        self.pose = build_pose({})
        self._fill(self.network.encoder, "monodepth2", "encoder")
        self._fill(
            self.network.depth, *(("sub_depth", "depth", "depth_v2") if self.config else ("monodepth2", "depth"))
        )
        self._fill(self.pose.pose_encoder, "monodepth2", "pose_encoder")
        self._fill(self.pose.pose, "monodepth2", "pose")
        modules = [self.network, self.pose]
        if self.config:
            self.sigma = PhotometricUncertainty()
            self._fill(self.sigma.ph_uncert_enc, "sub_depth", "ph_uncert_enc")
            self._fill(self.sigma.ph_uncert_dec, "sub_depth", "ph_uncert_dec")
            modules.append(self.sigma)
            self.teacher = zoo.build({"family": "monodepth2"})
            self._fill(self.teacher.encoder, "monodepth2", "encoder", "encoder_teacher")
            self._fill(self.teacher.depth, "monodepth2", "depth", "depth_teacher")
            set_teacher_mode(self.teacher, self.config.teacher_mode)
        parameters = [p for module in modules for p in module.train().parameters()]
        self.optimizer = torch.optim.Adam(parameters, 1e-4)

    def _fill(self, module, net, part, key=None):
        seed = self.table["weight_seeds"][key or part]
        module.load_state_dict(without_classifier(recipe(net, part, seed=seed)))

    def step(self, file):
        images = {f: file[f"color_{f}_0"] for f in FRAMES}
        out = self.network(images[0])
        poses = self.pose(images)
        views = Views(
            {s: file[f"color_0_{s}"] for s in range(4)},
            {f: {0: images[f]} for f in (-1, 1)},
            {0: Cameras(file["K_0"], file["inv_K_0"])},
            poses,
        )
        parts = photometric_losses(dict(enumerate(out.disparities)), views, PhotometricConfig())
        seen = {"disp_0": out.disparities[0]}
        for f, pose in poses.items():
            seen[f"T_{f}"] = pose_matrix(pose.axisangle, pose.translation, invert=pose.invert)
        if self.config is None:
            loss, scales = total_loss(parts), {s: part.loss for s, part in parts.items()}
        else:
            loss, scales = self._sub_depth(images, out, parts, seen)
        self.optimizer.zero_grad()
        loss.backward()
        return loss, scales, seen

    def _sub_depth(self, images, out, parts, seen):
        sigma_pho = log_mean_sigma(self.sigma.of_sources(images))
        with torch.no_grad():
            pseudo = self.teacher(images[0]).disparities[0]
        rec, scales = reconstruction_loss(
            {s: part.minimum for s, part in parts.items()},
            {s: part.regularisation for s, part in parts.items()},
            sigma_pho,
            self.config,
        )
        sigma_reg = log_sigma(out.uncertainty_logits[0])
        seen |= {"photometric_uncert": sigma_pho.exp(), "uncert_0": sigma_reg.exp()}
        return rec + distillation_loss(out.disparities[0], pseudo, sigma_reg), scales

    def gradient_norms(self):
        modules = {
            "encoder": self.network.encoder,
            "depth": self.network.depth,
            "pose_encoder": self.pose.pose_encoder,
            "pose": self.pose.pose,
        }
        if self.config:
            modules |= {"ph_uncert_enc": self.sigma.ph_uncert_enc, "ph_uncert_dec": self.sigma.ph_uncert_dec}
        return {
            name: torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm().item()
            for name, module in modules.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_two_steps(name):
    file, outputs = arrays("training_step_inputs"), arrays("training_step_outputs")
    expected = values("training_step_values")[name]["steps"]
    system = System(name)
    seen = {}
    for number, step in enumerate(expected):
        tolerance = 2e-5 if number == 0 else 2e-3
        loss, scales, maps = system.step(file)
        seen = maps if number == 0 else seen
        assert loss.item() == pytest.approx(step["loss"], abs=tolerance)
        for scale, value in scales.items():
            assert value.item() == pytest.approx(step[f"loss/{scale}"], abs=tolerance)
        if number == 0:
            for module, norm in system.gradient_norms().items():
                assert norm == pytest.approx(step["grad_norm"][module], rel=0.02), module
        system.optimizer.step()
    for key, value in seen.items():
        mostly_close(value, outputs[f"{name}/{key}"], 2e-5, 0.999)
    mean = system.network.encoder.encoder.bn1.running_mean
    close(mean, outputs[f"{name}/encoder_bn1_running_mean"], 1e-4)
    if system.config:
        mean = system.teacher.encoder.encoder.bn1.running_mean
        close(mean, outputs[f"{name}/encoder_teacher_bn1_running_mean"], 1e-4)
        assert all(p.grad is None for p in system.teacher.parameters())
        unused = {n for n, p in system.network.depth.named_parameters() if p.grad is not None and ".conv.weight" in n}
        for head in (11, 12, 13):
            assert not system.network.depth.decoder[head].conv.weight.grad[1].any(), unused


def test_the_frozen_teacher_keeps_its_statistics():
    """In evaluation mode the stored running means after two steps are the initial ones; in train mode they moved."""
    outputs = arrays("training_step_outputs")
    seed = values("training_step_values")["weight_seeds"]["encoder_teacher"]
    initial = recipe("monodepth2", "encoder", seed=seed)["encoder.bn1.running_mean"]
    key = "encoder_teacher_bn1_running_mean"
    assert torch.equal(outputs[f"sub_depth_teacher_eval_mode/{key}"], initial)
    assert not torch.allclose(outputs[f"sub_depth_teacher_train_mode/{key}"], initial, atol=1e-3)
