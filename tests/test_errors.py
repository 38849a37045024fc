"""Words of messages."""

from __future__ import annotations

from adubench.errors import counted


def test_one_thing_is_no_plural():
    assert [counted(n, "map") for n in (0, 1, 2)] == ["0 maps", "1 map", "2 maps"]
    assert counted(2, "lens", "lenses") == "2 lenses"
