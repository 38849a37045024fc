from pathlib import Path

import pytest

from adubench.datasets.frames import kitti_frame, parse_kitti
from adubench.errors import DataError, ProtocolError
from adubench.evaluators.predictions import match_by_alias, match_by_stem, missing_error


class Maps:
    """Names without maps."""

    root = Path("predictions")

    def __init__(self, *names, stacked=False, single=False):
        self.names = tuple(names)
        self.stacked, self.single = stacked, single

    def where(self, name):
        return f"predictions/{name}.png"


FRAMES = [kitti_frame("2011_09_26_drive_0002", i) for i in (69, 70)]
NAMES = [f.name for f in FRAMES]


def _identify(name):
    frame = parse_kitti(name)
    return frame.name if frame else None


def _match(maps, **options):
    aliases = {f.name: f.aliases() for f in FRAMES}
    return match_by_alias(NAMES, maps, identify=_identify, aliases=aliases, **options)


@pytest.mark.parametrize(
    "pattern",
    [
        "2011_09_26_drive_0002_sync/image_02/{:010d}",
        "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/{:010d}",
        "some/where/2011_09_26_drive_0002_sync/image_02/{:010d}",
        "2011_09_26_drive_0002_sync_{:010d}",
        "2011_09_26_drive_0002_{:010d}",
        "2011_09_26_drive_0002_sync_image_{:010d}_image_02",
        "2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/{:010d}",
    ],
)
def test_every_accepted_name_finds_its_frame(pattern):
    names = [pattern.format(i) for i in (69, 70)]
    matching = _match(Maps(*names))
    assert list(matching.keys.values()) == names
    assert matching.missing == matching.unknown == ()


def test_two_names_of_one_frame_are_refused():
    with pytest.raises(DataError, match="two predictions for frame"):
        _match(Maps("2011_09_26_drive_0002_0000000069", "2011_09_26_drive_0002_sync_0000000069"))


def test_missing_and_unknown_are_named():
    matching = _match(Maps(NAMES[0], "2011_09_26_drive_0002_sync/image_02/0000000099", "readme"))
    assert matching.missing == (NAMES[1],)
    assert matching.unknown == ("2011_09_26_drive_0002_sync/image_02/0000000099", "readme")
    message = str(missing_error(matching.missing, 2, Maps()))
    assert "1 of 2 predictions missing" in message
    assert NAMES[1] in message


def test_predictions_of_frames_that_are_not_scored_are_not_unknown():
    other = kitti_frame("2011_09_26_drive_0002", 99).name
    assert _match(Maps(*NAMES, other), known=frozenset([other])).unknown == ()


def test_nothing_in_common_shows_both_sides():
    with pytest.raises(ProtocolError, match=r"named like 'a/b', frames like '2011_09_26"):
        _match(Maps("a/b"))


def test_a_stack_is_taken_in_the_order_of_its_length():
    full = ["x", *NAMES]
    stack = Maps("0000000000", "0000000001", "0000000002", stacked=True)
    assert _match(stack, orders=[full, NAMES]).keys == {NAMES[0]: "0000000001", NAMES[1]: "0000000002"}
    with pytest.raises(DataError, match="1 stacked predictions, expected 3 or 2"):
        _match(Maps("0000000000", stacked=True), orders=[full, NAMES])


def test_single_maps_are_paired_whatever_their_names():
    assert match_by_stem(["depth"], Maps("other", single=True)).keys == {"depth": "other"}
    assert match_by_stem(["a", "b"], Maps("b", "c")).missing == ("a",)


def test_a_driving_stereo_stem_is_found_at_the_end_of_any_path():
    from adubench.datasets.frames import driving_stereo_stem

    stem = "2018-07-11-14-48-52_2018-07-11-15-45-53-241"
    assert driving_stereo_stem(f"depth-map-half-size/2018-07-11-14-48-52/{stem}") == stem
    assert driving_stereo_stem("depth-map-half-size/0000000001") is None
