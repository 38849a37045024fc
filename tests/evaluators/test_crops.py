from __future__ import annotations

import pytest

from adubench.errors import ProtocolError, UsageError
from adubench.evaluators.crops import fits_window, kb_window, rectangle

# size: window top and left; then garg and eigen, on the full image and on the window in full-image coordinates.
TABLE = {
    (375, 1242): ((23, 13), (153, 371, 44, 1197), (124, 342, 44, 1197), (166, 372, 56, 1185), (140, 344, 56, 1185)),
    (370, 1226): ((18, 5), (151, 366, 44, 1181), (122, 337, 44, 1181), (161, 367, 48, 1177), (135, 339, 48, 1177)),
    (376, 1241): ((24, 12), (153, 372, 44, 1196), (124, 343, 44, 1196), (167, 373, 55, 1184), (141, 345, 55, 1184)),
    (374, 1238): ((22, 11), (152, 370, 44, 1193), (124, 341, 44, 1193), (165, 371, 54, 1183), (139, 343, 54, 1183)),
    (370, 1224): ((18, 4), (151, 366, 43, 1180), (122, 337, 43, 1180), (161, 367, 47, 1176), (135, 339, 47, 1176)),
    (352, 1216): ((0, 0), (143, 349, 43, 1172), (117, 321, 43, 1172), (143, 349, 43, 1172), (117, 321, 43, 1172)),
}


@pytest.mark.parametrize("size", TABLE, ids=str)
def test_bounds_of_all_kitti_sizes(size):
    window, garg, eigen, garg_window, eigen_window = TABLE[size]
    top, left = kb_window(*size)
    assert (top, left) == window
    assert rectangle("garg", *size) == garg
    assert rectangle("eigen", *size) == eigen
    for crop, want in (("garg", garg_window), ("eigen", eigen_window)):
        r0, r1, c0, c1 = rectangle(crop, 352, 1216)
        assert (r0 + top, r1 + top, c0 + left, c1 + left) == want


def test_none_and_nyu():
    assert rectangle("none", 7, 9) == (0, 7, 0, 9)
    assert rectangle("nyu", 480, 640) == (45, 471, 41, 601)
    with pytest.raises(ProtocolError, match="480x640"):
        rectangle("nyu", 480, 641)


def test_what_does_not_exist():
    with pytest.raises(UsageError, match="did you mean 'garg'"):
        rectangle("grag", 10, 10)
    with pytest.raises(ProtocolError, match="351x1216 is smaller"):
        kb_window(351, 1216)
    assert not fits_window((352, 1215))
    assert fits_window((352, 1216))
