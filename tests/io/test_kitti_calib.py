import logging

import numpy as np
import pytest

from adubench.errors import DataError
from adubench.io.kitti_calib import read_calib_file, read_calibration, read_driving_stereo_calibration


# Two recording days as published; the baselines are those of the data set's calibration.
def _projection(fx, cx, cy, tx, ty, tz):
    return f"{fx} 0 {cx} {tx} 0 {fx} {cy} {ty} 0 0 1 {tz}"


P02 = {
    "2011_09_26": _projection(721.5377, 609.5593, 172.854, 44.85728, 0.2163791, 0.002745884),
    "2011_09_30": _projection(707.0912, 601.8873, 183.1104, 46.88783, 0.1178601, 0.006203223),
}
P03 = {
    "2011_09_26": _projection(721.5377, 609.5593, 172.854, -339.5242, 2.199936, 0.002729905),
    "2011_09_30": _projection(707.0912, 601.8873, 183.1104, -333.4597, 1.930130, 0.003318498),
}
EYE = "1 0 0 0 1 0 0 0 1"


def write(folder, date="2011_09_26", cam=(), velo=(), **changes):
    values = {
        "S_rect_02": "1.242000e+03 3.750000e+02",
        "P_rect_02": P02[date],
        "P_rect_03": P03[date],
        "R_rect_00": EYE,
    }
    values |= {"calib_time": "09-Jan-2012 13:57:47", "corner_dist": "9.950000e-02"} | changes
    folder.mkdir(exist_ok=True)
    lines = [f"{k}: {v}" for k, v in values.items() if v is not None]
    (folder / "calib_cam_to_cam.txt").write_text("\n".join([*lines, *cam]))
    (folder / "calib_velo_to_cam.txt").write_text("\n".join(["calib_time: today", f"R: {EYE}", "T: 0 0 0", *velo]))
    return folder


def test_values(tmp_path):
    calib = read_calibration(write(tmp_path / "d"))
    assert (calib.fx, calib.fy, calib.cx, calib.cy) == (721.5377, 721.5377, 609.5593, 172.854)
    assert calib.size == (375, 1242)
    np.testing.assert_array_equal(calib.K, [[721.5377, 0, 609.5593], [0, 721.5377, 172.854], [0, 0, 1]])
    assert calib.projection(3)[0, 3] == -339.5242
    with pytest.raises(DataError, match="camera 0"):
        calib.projection(0)


@pytest.mark.parametrize(
    ("date", "baseline", "naive"), [("2011_09_26", 0.532712, 0.532725), ("2011_09_30", 0.535449, 0.537904)]
)
def test_baseline_uses_the_last_row(tmp_path, date, baseline, naive):
    calib = read_calibration(write(tmp_path / "d", date))
    assert calib.baseline_m == pytest.approx(baseline, abs=1e-6)
    assert (calib.P_rect_02[0, 3] - calib.P_rect_03[0, 3]) / calib.fx == pytest.approx(naive, abs=1e-5)


@pytest.mark.parametrize("key", ["P_rect_02", "P_rect_03", "R_rect_00", "S_rect_02"])
@pytest.mark.parametrize(
    ("value", "words"), [(None, "is missing"), ("1 2 3 4 5", "expected"), ("nan " * 12, "expected")]
)
def test_faults_name_file_and_key(tmp_path, key, value, words):
    folder = write(tmp_path / "d", **{key: value})
    with pytest.raises(DataError, match=rf"calib_cam_to_cam\.txt: key {key}.*{words}"):
        read_calibration(folder)


def test_impossible_values(tmp_path):
    for key, value in (("S_rect_02", "0 375"), ("S_rect_02", "1e9 2"), ("P_rect_02", "0 " * 12)):
        with pytest.raises(DataError, match=key):
            read_calibration(write(tmp_path / "d", **{key: value}))


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(DataError, match=r"calib_cam_to_cam\.txt: no such file"):
        read_calibration(tmp_path)
    folder = write(tmp_path / "d")
    (folder / "calib_velo_to_cam.txt").write_bytes(b"R: \xff\xfe")
    with pytest.raises(DataError, match=r"calib_velo_to_cam\.txt: not a text file"):
        read_calibration(folder)


def test_lines_that_are_no_numbers_are_left_out(tmp_path):
    path = tmp_path / "c.txt"
    path.write_bytes(b"\xef\xbb\xbfa: 1 2\r\nno colon\r\nb:\r\ntime: 09-Jan\r\nc: 3\r\n")
    values = read_calib_file(path)
    assert sorted(values) == ["a", "c"]
    np.testing.assert_array_equal(values["a"], [1, 2])


def _stereo(path, baseline="-0.5447 0.001 0.002", last=-1123.8):
    path.write_text(
        f"S_101: 1 2\nT_103: {baseline}\nP_rect_101: 2063.2 0 978.4 0 0 2062.4 580.8 0 0 0 1 0\n"
        f"P_rect_103: 2063.2 0 978.4 {last} 0 2062.4 580.8 0 0 0 1 0\n"
    )
    return path


def test_driving_stereo(tmp_path, caplog):
    calib = read_driving_stereo_calibration(_stereo(tmp_path / "c.txt"))
    assert (calib.fx, calib.fy, calib.cx, calib.cy) == (2063.2, 2062.4, 978.4, 580.8)
    assert calib.baseline_m == pytest.approx(0.544705, abs=1e-6)
    assert calib.warning == ""
    with caplog.at_level(logging.WARNING):
        calib = read_driving_stereo_calibration(_stereo(tmp_path / "c.txt", last=-2247.6))
    assert calib.baseline_m == pytest.approx(0.544705, abs=1e-6)
    assert "T_103" in calib.warning
    assert "T_103" in caplog.text
    with pytest.raises(DataError, match="baseline of 0"):
        read_driving_stereo_calibration(_stereo(tmp_path / "c.txt", "0 0 0"))
    with pytest.raises(DataError, match="key P_rect_101 is missing"):
        read_driving_stereo_calibration(write(tmp_path / "d") / "calib_cam_to_cam.txt")
