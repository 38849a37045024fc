"""The adapter of `transformers` models, with a stand-in for the library: what it asks of it and what it makes of it."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.errors import DataError, UsageError  # noqa: E402
from adubench.training.predictor import PredictOptions, open_predictor  # noqa: E402
from tests.checkpoints import save_image  # noqa: E402


class Model(torch.nn.Module):
    """Depth is the red channel times a weight, at half the size."""

    def __init__(self, config):
        super().__init__()
        self.config, self.dtype = config, torch.float32
        self.weight = torch.nn.Parameter(torch.tensor(config.weight))

    def forward(self, pixel_values):
        if self.config.weight == 0:
            raise ValueError("image size does not fit")
        return SimpleNamespace(predicted_depth=pixel_values[:, 0, ::2, ::2] * self.weight)


class Processor:
    def __call__(self, images, return_tensors):
        pixels = torch.from_numpy(images.astype(np.float32)).permute(2, 0, 1)[None]
        return SimpleNamespace(to=lambda device: {"pixel_values": pixels})

    def post_process_depth_estimation(self, outputs, target_sizes, **extra):
        self.extra = extra
        (size,) = target_sizes
        depth = torch.nn.functional.interpolate(outputs.predicted_depth[None], size, mode="bicubic")
        return [{"predicted_depth": depth[0, 0]}]


@pytest.fixture
def library(monkeypatch):
    """Install the stand-in; what it holds is set by `library(model_type=..., weight=..., ...)`."""

    def install(**values):
        config = SimpleNamespace(**{"model_type": "glpn", "max_depth": 80, "weight": 0.5} | values)
        processor = Processor()
        quiet = SimpleNamespace(set_verbosity_error=lambda: None, disable_progress_bar=lambda: None)
        made = SimpleNamespace(
            logging=quiet,
            AutoConfig=SimpleNamespace(from_pretrained=lambda name: config),
            AutoModelForDepthEstimation=SimpleNamespace(from_pretrained=lambda name: Model(config)),
            AutoImageProcessor=SimpleNamespace(from_pretrained=lambda name: processor),
        )
        monkeypatch.setitem(sys.modules, "transformers", made)
        return processor

    return install


def predict(image, **options):
    return open_predictor("hf:any/model", PredictOptions(device="cpu", **options)).predict([image])[0]


def test_depth_comes_back_at_the_images_size_within_the_models_range(library):
    library()
    image = np.zeros((8, 12, 3), np.uint8)
    image[:, 6:] = 200
    found = predict(image)
    assert (found.kind, found.values.shape, found.values.dtype) == ("depth", (8, 12), np.float32)
    # 200 / 2 metres is beyond the range, and bicubic interpolation undershoots beside the edge
    assert found.values.max() == 80
    assert found.values.min() == np.float32(1e-3)


def test_flip_averaging_and_window_are_ours(library):
    library()
    ramp = np.repeat(np.arange(8, dtype=np.uint8)[None, :, None] * 4, 6, axis=0).repeat(3, axis=2)
    plain, mirrored = predict(ramp).values, predict(np.ascontiguousarray(ramp[:, ::-1])).values[:, ::-1]
    np.testing.assert_allclose(predict(ramp, flip=True).values, (plain + mirrored) / 2, atol=1e-6)
    assert predict(np.zeros((360, 1220, 3), np.uint8), kb_crop=True).values.shape == (352, 1216)


def test_zoedepth_is_told_the_source_size(library):
    processor = library(model_type="zoedepth", max_depth=None)
    predict(np.zeros((6, 8, 3), np.uint8))
    assert processor.extra == {"source_sizes": [(6, 8)]}


def test_relative_models_are_no_depth_and_their_disparity_is_not_negative(library):
    library(model_type="depth_anything", depth_estimation_type="relative", max_depth=1, weight=-1.0)
    found = predict(np.full((6, 8, 3), 9, np.uint8))
    assert found.kind == "relative-disparity"
    assert (found.values == 0).all()


def test_the_record_names_the_weights_themselves(library):
    library()
    first = open_predictor("hf:any/model", PredictOptions(device="cpu")).describe()["predictor"]
    library(weight=0.25)
    second = open_predictor("hf:any/model", PredictOptions(device="cpu")).describe()["predictor"]
    assert first["transformers"] == second["transformers"] == "any/model"
    assert len(first["sha256"]) == 64
    assert first["sha256"] != second["sha256"]
    assert {"revision", "dtype", "model_type"} <= first.keys()


def test_a_model_that_fails_is_a_sentence(library):
    library(weight=0.0)
    with pytest.raises(
        DataError, match=r"hf:any/model: the model failed on an image of 6x8 \(image size does not fit\)"
    ):
        predict(np.zeros((6, 8, 3), np.uint8))


def test_a_folder_that_is_not_there_is_named(library, tmp_path):
    library()
    with pytest.raises(DataError, match="no such folder"):
        open_predictor(f"hf:{tmp_path / 'nothing'}")


def test_kinds_that_are_not_declared_are_asked_for(library):
    library(model_type="dpt")
    with pytest.raises(UsageError, match="--kind relative-disparity"):
        open_predictor("hf:any/model", PredictOptions(device="cpu"))
    assert predict(np.zeros((4, 4, 3), np.uint8), kind="depth").kind == "depth"


def test_teacher_maps_take_range_and_weights_from_the_model(library, tmp_path):
    from adubench.datasets.teacher_maps import read_record
    from adubench.training.prediction_inputs import list_images
    from adubench.training.teacher_map_run import predict_teacher_maps

    save_image(tmp_path / "in/a.png", (6, 8))
    jobs = list_images([tmp_path / "in"])
    library(max_depth=10)
    teacher = open_predictor("hf:any/model", PredictOptions(device="cpu", flip=True))
    predict_teacher_maps(teacher, jobs, tmp_path / "maps")
    record = read_record(tmp_path / "maps")
    assert (record.max_depth, record.flip, record.teacher) == (10.0, "mean", "model")
    assert record.weights_sha256 == teacher.describe()["predictor"]["sha256"]
    assert json.loads((tmp_path / "maps/prediction.json").read_text())["predictor"]["transformers"] == "any/model"
    library(model_type="depth_anything", depth_estimation_type="relative")
    relative = open_predictor("hf:any/model", PredictOptions(device="cpu"))
    with pytest.raises(UsageError, match="holds metres, and model predicts relative-disparity"):
        predict_teacher_maps(relative, jobs, tmp_path / "other")
    assert not (tmp_path / "other").exists()
