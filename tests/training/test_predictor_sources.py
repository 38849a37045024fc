"""Python files and transformers models as predictors; what they predict is declared, their faults are sentences."""

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from adubench.errors import DataError, UsageError  # noqa: E402
from adubench.training.predictor import PredictOptions, open_predictor  # noqa: E402
from adubench.training.predictor_sources import hf_kind  # noqa: E402
from tests.checkpoints import save_image  # noqa: E402

GREY = "import numpy as np\nKIND = 'depth'\ndef predict(image):\n    return 1 + image[..., 0].astype(np.float32)\n"


@pytest.fixture
def user_file(tmp_path):
    def write(text):
        path = tmp_path / "model.py"
        path.write_text(text)
        return path

    return write


def test_a_file_with_predict_alone(user_file, tmp_path):
    pixels = save_image(tmp_path / "i.png")
    predictor = open_predictor(user_file(GREY))
    (found,) = predictor.predict([pixels])
    assert predictor.kind == "depth"
    assert np.array_equal(found.values, 1 + pixels[..., 0].astype(np.float32))
    assert set(predictor.describe()["predictor"]) == {"file", "sha256"}
    assert not list(tmp_path.glob("**/__pycache__"))


def test_load_is_called_once_and_tensors_are_taken(user_file):
    text = (
        "import torch\nKIND = 'depth'\nloads = []\n"
        "def load():\n    loads.append(1)\n    return 3.0\n"
        "def predict(model, image):\n    assert loads == [1]\n    return torch.full((1, 1, *image.shape[:2]), model)\n"
    )
    predictor = open_predictor(user_file(text))
    found = predictor.predict([np.zeros((4, 5, 3), np.uint8)] * 2)
    assert [p.values.tolist() for p in found] == [[[3.0] * 5] * 4] * 2


def test_uncertainty_stereo_flip_and_window(user_file):
    text = (
        "KIND = 'depth'\nSTEREO = True\nUNCERTAINTY_KIND = 'sigma'\n"
        "def predict(left, right):\n    return left[..., 0] + 2.0 * right[..., 0], left[..., 1] * 1.0\n"
    )
    predictor = open_predictor(user_file(text), PredictOptions(kb_crop=True))
    left, right = (np.full((360, 1220, 3), value, np.uint8) for value in (1, 2))
    (found,) = predictor.predict([left], [right])
    assert found.values.shape == (352, 1216)
    assert (found.values == 5).all()
    assert (found.uncertainty == 1).all()
    flipped = open_predictor(user_file(GREY), PredictOptions(flip=True))
    ramp = np.zeros((2, 4, 3), np.uint8)
    ramp[..., 0] = [0, 2, 4, 6]
    assert flipped.predict([ramp])[0].values.tolist() == [[1, 3, 5, 7]] * 2


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (GREY.replace("KIND = 'depth'", ""), UsageError, "does not say what it predicts"),
        (GREY.replace("'depth'", "'metres'"), UsageError, "unknown KIND"),
        ("KIND = 'depth'\n", DataError, "has no function predict"),
        ("KIND = 'depth'\ndef predict(\n", DataError, r"SyntaxError \(line 2\)"),
        ("raise SystemExit(3)\n", DataError, "cannot be run: SystemExit"),
        ("KIND = 'depth'\ndef predict(a, b, c):\n    return a\n", DataError, "takes 3 arguments"),
        ("KIND = 'depth'\ndef predict(image):\n    return 1 / 0\n", DataError,
         r"predict failed: ZeroDivisionError \(line 3\)"),
        ("KIND = 'depth'\ndef predict(image):\n    return image\n", DataError, r"shape \(4, 5, 3\)"),
        ("KIND = 'depth'\ndef predict(image):\n    return image[:2, :, 0]\n", DataError, "2x5 for an image of 4x5"),
        ("KIND = 'depth'\ndef predict(image):\n    return 'deep'\n", DataError, "returned str"),
        ("KIND = 'depth'\ndef predict(image):\n    return image[..., 0], image[..., 0]\n", DataError,
         "UNCERTAINTY_KIND"),
        ("KIND = 'depth'\ndef load():\n    open('none.pt')\ndef predict(m, image):\n    return image\n", DataError,
         r"load failed: FileNotFoundError \(line 3\)"),
    ],
)  # fmt: skip
def test_faults_of_a_users_file_are_sentences(user_file, text, error, words):
    with pytest.raises(error, match=words):
        open_predictor(user_file(text)).predict([np.zeros((4, 5, 3), np.uint8)])


def test_kind_may_be_given_from_outside(user_file):
    predictor = open_predictor(user_file(GREY.replace("KIND = 'depth'", "")), PredictOptions(kind="relative-depth"))
    assert predictor.kind == "relative-depth"


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'adubench\[hf\]'"):
        open_predictor("hf:nobody/nothing")


class _Config:
    def __init__(self, model_type, **values):
        self.model_type = model_type
        self.__dict__.update(values)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (_Config("glpn"), "depth"),
        (_Config("zoedepth"), "depth"),
        (_Config("depth_anything", depth_estimation_type="metric"), "depth"),
        (_Config("depth_anything", depth_estimation_type="relative"), "relative-disparity"),
    ],
)
def test_the_configuration_tells_what_a_transformers_model_predicts(config, kind):
    assert hf_kind(config, "x") == kind


def test_models_that_do_not_tell_ask_for_kind():
    with pytest.raises(UsageError, match="--kind relative-disparity"):
        hf_kind(_Config("dpt"), "Intel/dpt-large")
    with pytest.raises(UsageError, match="no depth from one image alone"):
        hf_kind(_Config("prompt_depth_anything"), "x")


def test_a_small_transformers_model_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GLPNConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 4], decoder_hidden_size=16,
        max_depth=80,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.GLPNForDepthEstimation(config).save_pretrained(tmp_path / "glpn")
    transformers.GLPNImageProcessor().save_pretrained(tmp_path / "glpn")
    predictor = open_predictor(f"hf:{tmp_path / 'glpn'}", PredictOptions(device="cpu"))
    (found,) = predictor.predict([save_image(tmp_path / "i.png", (50, 70))])
    assert (found.kind, found.values.shape, found.values.dtype) == ("depth", (50, 70), np.float32)
    assert ((found.values > 0) & (found.values <= 80)).all()


def test_a_transformers_model_that_cannot_be_had_is_a_sentence(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be loaded"):
        open_predictor(f"hf:{tmp_path / 'empty'}")
