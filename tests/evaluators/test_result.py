import json

import numpy as np
import pytest

from adubench.errors import ResultError
from adubench.evaluators.result import EvaluationResult, MomentTable, load_result, load_results, save_results


def _result(name="kitti-eigen", value=0.1):
    rng = np.random.default_rng(0)
    return EvaluationResult(
        protocol={"name": name, "version": 1, "fingerprint": "f" * 64, "crop": "garg"},
        split="eigen_test",
        counts={"expected": 2, "evaluated": 2},
        provenance={"adubench": "0"},
        summary={"abs_rel": value, "silog": float("nan")},
        aggregates={"image_mean": {"abs_rel": value}, "pooled": {"abs_rel": value}},
        per_image={"frame": ["a", "b"], "drive": ["d", "d"], "n_pixels": [3, 4], "abs_rel": [0.1, float("inf")]},
        regions={"all": {"abs_rel": value}},
        moments=MomentTable(("a", "b"), ("d", "d"), ("all",), rng.random((2, 1, 15))),
        issues={"missing_prediction": []},
        warnings=["careful"],
        label="mine",
    )


def test_round_trip_keeps_every_number(tmp_path):
    before = _result()
    save_results([before], tmp_path / "r.json")
    after = load_result(tmp_path / "r.json")
    assert after.protocol == before.protocol
    assert after.summary["abs_rel"] == before.summary["abs_rel"]
    assert np.isnan(after.summary["silog"])
    assert after.per_image["frame"] == ["a", "b"]
    assert np.isnan(after.per_image["abs_rel"][1])
    assert np.array_equal(after.moments.values, before.moments.values)
    assert after.warnings == ["careful"]
    assert after.label == "mine"


def test_several_results_share_a_file(tmp_path):
    save_results([_result("a"), _result("b", 0.2)], tmp_path / "r.json")
    assert [r.protocol["name"] for r in load_results(tmp_path / "r.json")] == ["a", "b"]
    with pytest.raises(ResultError, match="holds 2 results"):
        load_result(tmp_path / "r.json")


def test_equal_results_are_equal_bytes(tmp_path):
    for name in ("one", "two"):
        save_results([_result()], tmp_path / name / "r.json")
    for file in ("r.json", "r.npz"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_json_has_no_nan(tmp_path):
    save_results([_result()], tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert data["summary"]["silog"] is None
    assert data["per_image"]["abs_rel"] == [0.1, None]
    assert data["moment_table"]["file"] == "r.npz"


def test_a_changed_table_is_noticed_and_an_absent_one_is_none(tmp_path):
    save_results([_result()], tmp_path / "r.json")
    other = _result()
    other.moments.values[0, 0, 0] += 1
    save_results([other], tmp_path / "x.json")
    (tmp_path / "x.npz").replace(tmp_path / "r.npz")
    with pytest.raises(ResultError, match="hash differs"):
        load_result(tmp_path / "r.json")
    (tmp_path / "r.npz").unlink()
    assert load_result(tmp_path / "r.json").moments is None


def _broken(key, value):
    def change(data):
        data[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_broken("schema_version", 99), "schema version 99"),
        (_broken("schema_version", "1"), "schema version '1'"),
        (lambda d: d.pop("schema_version"), "no schema_version"),
        (lambda d: d.pop("protocol"), "'protocol'"),
        (_broken("summary", {"abs_rel": "good"}), "summary.abs_rel"),
        (_broken("per_image", {"frame": ["a"], "abs_rel": []}), "differ in length"),
        (_broken("results", []), "holds no results"),
    ],
)
def test_broken_files_are_sentences(tmp_path, change, words):
    save_results([_result()], tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text())
    change(data)
    (tmp_path / "r.json").write_text(json.dumps(data))
    with pytest.raises(ResultError, match=words.replace(".", r"\.")):
        load_results(tmp_path / "r.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'"text"'])
def test_files_of_another_kind(tmp_path, content):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(ResultError, match=r"r\.json"):
        load_results(tmp_path / "r.json")


def test_a_result_must_not_be_named_like_its_table(tmp_path):
    with pytest.raises(ResultError, match="a result is a JSON file"):
        save_results([_result()], tmp_path / "r.npz")
