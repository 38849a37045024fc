"""How regions are written into bits, and the compact form of an image's regions that is cached and summed over.

An image has few distinct words (which bins and flags a pixel has): some hundred. The compact form is their table and
one 16-bit number per valid pixel, so that all regions, overlapping ones and products too, follow from one histogram.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adubench.errors import DataError
from adubench.evaluators.region_params import FLAGS, PARTITIONS, RegionParameters, partition_bounds, regions

if TYPE_CHECKING:
    from collections.abc import Sequence

Words = NDArray[np.uint64]
BoolArray = NDArray[np.bool_]
_HEADER = np.dtype("<i8")
_MAGIC = 0x31474552  # "REG1"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each region's bits lie in a word.

    Attributes:
        parameters: what the layout follows from.
        fields: partition -> (first bit, number of bits); the value is bin + 1, 0 means in no bin.
        flags: overlapping region -> bit.
    """

    parameters: RegionParameters
    fields: dict[str, tuple[int, int]]
    flags: dict[str, int]

    @classmethod
    def of(cls, parameters: RegionParameters) -> Layout:
        """Lay out the regions of some parameters.

        Raises:
            DataError: more bins than 64 bits hold.
        """
        position, fields, flags = 0, {}, {}
        for family in PARTITIONS:
            if family in parameters.families:
                bits = (len(partition_bounds(family, parameters)) + 2).bit_length()
                fields[family] = (position, bits)
                position += bits
        for region, family in FLAGS.items():
            if family in parameters.families or (region == "seethrough" and parameters.drop_seethrough):
                flags[region] = position
                position += 1
        if position > 64:
            raise DataError("too many region bins at once; give fewer bounds or fewer families.")
        return cls(parameters, fields, flags)

    def encode(self, field: str, label: NDArray[np.uint8]) -> Words:
        """Write bin numbers into the bits of a partition."""
        return (label.astype(np.uint64) + np.uint64(1)) << np.uint64(self.fields[field][0])

    def label(self, field: str, words: Words) -> NDArray[np.int16]:
        """Read bin numbers of a partition; -1 for no bin."""
        first, bits = self.fields[field]
        value = (words >> np.uint64(first)) & np.uint64((1 << bits) - 1)
        return value.astype(np.int16) - np.int16(1)

    def member(self, name: str, words: Words) -> BoolArray:
        """Tell which words belong to a region, bool [n].

        Raises:
            KeyError: the parameters have no such region.
        """
        bits, value = self._tests()[name]
        inside: BoolArray = (words & np.uint64(bits)) == np.uint64(value)
        return inside

    def membership(self, names: Sequence[str], words: Words) -> NDArray[np.float64]:
        """Tell which word belongs to which region, float64 [regions, words] of 0 and 1."""
        tests = self._tests()
        bits, values = np.array([tests[name] for name in names], np.uint64).reshape(len(names), 2).T
        inside: BoolArray = (words & bits[:, None]) == values[:, None]
        return inside.astype(np.float64)

    def _tests(self) -> dict[str, tuple[int, int]]:
        return _region_tests(self.parameters)


@lru_cache(maxsize=16)
def _region_tests(parameters: RegionParameters) -> dict[str, tuple[int, int]]:
    """Region -> (bits, value): a word belongs to it when its masked bits are the value."""
    layout, out = Layout.of(parameters), {}
    for region in regions(parameters):
        bits = value = 0
        for field, label in region.parts:
            first, size = layout.fields[field]
            bits |= ((1 << size) - 1) << first
            value |= (label + 1) << first
        if not region.parts and region.name != "all":
            bits = value = 1 << layout.flags[region.name]
        if parameters.drop_seethrough and region.name not in ("all", "seethrough"):
            bits |= 1 << layout.flags["seethrough"]
        out[region.name] = (bits, value)
    return out


@dataclass(frozen=True, slots=True)
class RegionCodes:
    """The regions of one image at listed pixels.

    Attributes:
        shape: of the map.
        index: uint32 [n] flat positions, ascending; None when all pixels have a code.
        codes: uint16 (uint32 for more than 65,536 words) [n], rows of the table.
        table: uint64 [C], distinct words.
        absent: family -> why it has no mask in this image.
    """

    shape: tuple[int, int]
    index: NDArray[np.uint32] | None
    codes: NDArray[Any]
    table: Words
    absent: dict[str, str]

    @classmethod
    def from_words(
        cls, words: Words, index: NDArray[Any] | None, shape: tuple[int, int], absent: dict[str, str]
    ) -> RegionCodes:
        """Find the distinct words and number the pixels by them."""
        table, inverse = np.unique(words, return_inverse=True)
        codes = inverse.reshape(-1).astype(np.uint16 if table.size <= 1 << 16 else np.uint32)
        return cls(shape, None if index is None else index.astype(np.uint32), codes, table, absent)

    def at(self, index: NDArray[Any]) -> NDArray[Any]:
        """Return the codes [m] at flat positions of the map.

        Raises:
            DataError: a position has no code: the masks belong to other ground truth.
        """
        if self.index is None:
            return self.codes.take(index)
        missing = np.iinfo(self.codes.dtype).max
        # One number more than the table has is enough to notice pixels without code.
        full = np.full(self.shape[0] * self.shape[1], missing, self.codes.dtype)
        full[self.index] = self.codes
        found = full.take(index)
        if found.size and self.table.size <= missing and int(found.max()) >= self.table.size:
            raise DataError(
                "region masks lack pixels of this ground truth: they were made from another. Remove the cache."
            )
        return found

    def to_bytes(self) -> bytes:
        """Serialise for the cache; positions are kept as a bitmap."""
        note = json.dumps(self.absent, sort_keys=True).encode()
        bitmap = b""
        if self.index is not None:
            mask = np.zeros(self.shape[0] * self.shape[1], np.bool_)
            mask[self.index] = True
            bitmap = np.packbits(mask).tobytes()
        sizes = [_MAGIC, *self.shape, self.codes.size, self.codes.itemsize, self.table.size, len(bitmap), len(note)]
        codes = self.codes.astype(self.codes.dtype.newbyteorder("<")).tobytes()
        return np.array(sizes, _HEADER).tobytes() + self.table.astype("<u8").tobytes() + codes + bitmap + note

    @classmethod
    def from_bytes(cls, data: bytes | NDArray[np.uint8]) -> RegionCodes:
        """Restore what `to_bytes` wrote.

        Raises:
            DataError: not such data, or cut short.
        """
        raw = np.frombuffer(data, np.uint8)
        head = np.frombuffer(raw[: 8 * _HEADER.itemsize], _HEADER) if raw.size >= 64 else np.zeros(8, _HEADER)
        magic, height, width, count, itemsize, words, bitmap, note = (int(v) for v in head)
        ends = np.cumsum([64, 8 * words, count * itemsize, bitmap, note])
        if magic != _MAGIC or int(ends[-1]) != raw.size or itemsize not in (2, 4):
            raise DataError("region cache: an entry is damaged. Remove the file; it is made again.")
        table, codes, bits, text = (raw[a:b] for a, b in itertools.pairwise(ends))
        index = None
        if bitmap:
            index = np.flatnonzero(np.unpackbits(bits, count=height * width)).astype(np.uint32)
        return cls(
            (height, width), index, codes.view(f"<u{itemsize}"), table.view("<u8"), json.loads(text.tobytes() or b"{}")
        )
