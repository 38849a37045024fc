from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import pytest

from adubench.errors import UsageError
from adubench.evaluators.alignment import ALIGNMENTS
from adubench.evaluators.metrics import METRICS
from adubench.evaluators.protocols import PROTOCOLS, TOPICS, Protocol, diff, general_pitfalls, get_protocol, in_words

# A changed fingerprint means changed numbers: raise the record's version, then write the new value here.
FINGERPRINTS = {
    "kitti-eigen": "b17f03f778c44a49848e096f85e91a5d651ba4d954250a9dcb3b8fb7ea7f4131",
    "kitti-eigen-full": "68437e0931a6ac2ae48ca59184980a41c3981154aa9fd88c7b1f65626cc73578",
    "kitti-eigen-toolbox": "3bdeda8d4926503ac88337d7bc521ccd8d2e039b913437f62765899b317cba22",
    "kitti-eigen-raw": "1ee8d92ce8806ad5d4bc338770dd027e1a0c841f0274a9d95d5b65987150988a",
    "kitti-eigen-benchmark": "2162688fefdb64d452567bfa40af0c2572fa466abaa494fe812603841ca48f71",
    "kitti-mdb": "cf35aa4e254b25d835b31da5a9c93f9bbbce8ed0067f9b569e8d0c2332d34672",
    "kitti-official": "7c1abe2ddbbc23276802b7ee0d93da05c92cf1b750d682638f70b4f497011935",
    "drivingstereo": "2c7bdcb5d76a87da209caafc4c1efbd583bf916460098c691acb94a25b3c5d2d",
    "drivingstereo-weather": "db36e2f5b87ba0dba29702177198ecde4a63b5e48dfea2b542b69f3e1e9ea9b1",
    "full-frame": "0712e63b7249e73dd05b5a45b6743a3d0a3435bbdf0580bb31a5d9fb5aa9ea18",
    "synthdrive": "b7aff556aceb9d8e184f08319b8d2108da0aeef20b88396140ded9a9c30b0fa3",
    "nyu": "394aabbf4f448be8b12c3b148e7f7c64a9fa1bbb48b9cb2deaa803518f13a7f0",
}


def test_fingerprints_are_pinned():
    assert {name: record.fingerprint for name, record in PROTOCOLS.items()} == FINGERPRINTS


def test_a_number_changing_field_changes_the_fingerprint_and_words_do_not():
    base = PROTOCOLS["kitti-eigen"]
    changed = {
        "name": "other", "version": 2, "ground_truth": "raw", "frame": "full", "kitti_window": False, "gt_min": 0.0,
        "gt_max": None, "crop": "eigen", "clamp": None, "nan": "keep", "outside": 1.0, "pad_after_clamp": True,
        "alignment": "median", "inversion": "guarded", "positive_only": True, "resize": "bilinear", "missing": "fill",
        "arithmetic": "float32", "aggregate": "pooled", "compat_silog_zero": True, "metrics": ("rmse",),
    }  # fmt: skip
    words = {"title", "source", "images", "remark"}
    assert set(changed) | words == {field.name for field in dataclasses.fields(Protocol)}
    prints = {dataclasses.replace(base, **{key: value}).fingerprint for key, value in changed.items()}
    assert len(prints | {base.fingerprint}) == len(changed) + 1
    for word in words:
        assert dataclasses.replace(base, **{word: "x"}).fingerprint == base.fingerprint


def test_records_are_frozen_plain_data():
    for name, record in PROTOCOLS.items():
        assert record.name == record.base == name
        assert record.version >= 1
        assert pickle.loads(pickle.dumps(record)) == record
        json.dumps(record.to_dict(), allow_nan=False)
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.version = 9


@pytest.mark.parametrize(
    ("name", "options", "printed"),
    [
        ("kitti-eigen", {"crop": "none"}, "kitti-eigen[crop=none]"),
        ("kitti-eigen", {"cap": 50}, "kitti-eigen[cap=50]"),
        ("kitti-eigen", {"alignment": "median"}, "kitti-eigen[alignment=median]"),
        ("kitti-eigen", {"alignment": "lstsq"}, "kitti-eigen[alignment=lstsq]"),
        ("kitti-eigen-raw", {"alignment": "fixed:5.40"}, "kitti-eigen-raw[alignment=fixed:5.4]"),
        ("kitti-eigen", {"alignment": "median", "cap": 50.5, "crop": "eigen"},
         "kitti-eigen[crop=eigen,cap=50.5,alignment=median]"),
        ("kitti-eigen", {"crop": "garg", "cap": 80, "alignment": "none"}, "kitti-eigen"),
        ("kitti-eigen-raw", {"alignment": "median"}, "kitti-eigen-raw"),
        ("full-frame", {"min_depth": 0.5, "max_depth": 20}, "full-frame[min=0.5,max=20]"),
        ("full-frame", {"max_depth": 80}, "full-frame[max=80]"),
        ("kitti-eigen", {"min_depth": 1}, "kitti-eigen[min=1]"),
    ],
)  # fmt: skip
def test_names_of_overrides(name, options, printed):
    record = PROTOCOLS[name].with_options(**options)
    assert record.name == printed
    assert get_protocol(printed) == record
    assert record.base == name
    assert (record.fingerprint == PROTOCOLS[name].fingerprint) == (printed == name)


def test_overrides_can_be_undone():
    changed = get_protocol("kitti-eigen[crop=none,cap=50,alignment=median]")
    assert changed.clamp == (1e-3, 50.0)
    assert changed.with_options(crop="garg", cap=80, alignment="none") == PROTOCOLS["kitti-eigen"]
    assert PROTOCOLS["kitti-eigen-toolbox"].with_options(cap=88).clamp is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kitti-eigne", "did you mean 'kitti-eigen'"),
        ("kitti-eigen[corp=none]", "protocol option 'corp'"),
        ("kitti-eigen[crop=gargg]", "unknown crop 'gargg'"),
        ("kitti-eigen[cap=far]", "cap=far is no number"),
        ("kitti-eigen[cap=0.0001]", "holds no depth"),
        ("kitti-eigen[min=-1]", "holds no depth"),
        ("kitti-eigen[cap=nan]", "holds no depth"),
        ("kitti-eigen[cap=50", "unknown protocol"),
        ("kitti-eigen[alignment=medium]", "unknown alignment"),
    ],
)
def test_names_that_do_not_exist(name, message):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        get_protocol(name)


def test_cap_against_max_depth():
    with pytest.raises(UsageError, match="the same setting"):
        PROTOCOLS["full-frame"].with_options(cap=3, max_depth=4)
    assert PROTOCOLS["full-frame"].with_options(cap=3, max_depth=3).gt_max == 3


def test_every_difference_has_words():
    for a in PROTOCOLS.values():
        for b in PROTOCOLS.values():
            found = diff(a, b)
            skipped = {"name", "version", "title", "source", "remark"}
            fields = {f.name for f in dataclasses.fields(Protocol)} - skipped
            assert {d.field for d in found} == {f for f in fields if getattr(a, f) != getattr(b, f)}
            assert all(d.a != d.b for d in found)
        for field in TOPICS:
            assert in_words(a, field)


def test_pitfalls_that_apply():
    def text(a, b):
        return " ".join(p for d in diff(PROTOCOLS[a], PROTOCOLS[b]) for p in d.pitfalls)

    assert "Window against full frame" in text("kitti-eigen", "kitti-eigen-full")
    assert "Raw against improved" not in text("kitti-eigen", "kitti-eigen-full")
    assert "Raw against improved" in text("kitti-eigen", "kitti-eigen-raw")
    assert "Two metrics are called Sq Rel" in text("kitti-eigen", "kitti-official")
    assert "leaderboard" in text("kitti-eigen", "kitti-official")
    assert any("Flip" in p for p in general_pitfalls(PROTOCOLS["kitti-eigen"], PROTOCOLS["kitti-eigen-raw"]))
    assert not general_pitfalls(PROTOCOLS["full-frame"], PROTOCOLS["nyu"])


def test_documents_name_everything():
    docs = Path(__file__).resolve().parents[2] / "docs"
    protocols, metrics = (docs / "protocols.md").read_text(), (docs / "metrics.md").read_text()
    assert [name for name in PROTOCOLS if f"`{name}`" not in protocols] == []
    assert [key for key in METRICS if f"`{key}`" not in metrics] == []
    assert [name for name in ALIGNMENTS if f"`{name}`" not in metrics] == []
    assert "<!-- effects:start -->" in protocols
