"""How regions are written into bits, and the compact form of an image's regions that is cached and summed over.

An image has few distinct words (which bins and flags a pixel has): some hundred. The compact form is their table and
one 16-bit number per valid pixel, so that all regions, overlapping ones and products too, follow from one histogram.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
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

    def encode(self, family: str, label: NDArray[np.uint8]) -> Words:
        """Write bin numbers into the bits of a partition."""
        return (label.astype(np.uint64) + np.uint64(1)) << np.uint64(self.fields[family][0])

    def label(self, family: str, words: Words) -> NDArray[np.int16]:
        """Read bin numbers of a partition; -1 for no bin."""
        first, bits = self.fields[family]
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
        for family, label in region.parts:
            first, size = layout.fields[family]
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
        bitmap: packed bits of the listed pixels, uint8; None when all pixels have a code.
        codes: uint16 (uint32 for more than 65,536 words) [n] in the order of flat positions, rows of the table.
        table: uint64 [C], distinct words.
        absent: family -> why it has no mask in this image.
        counts: [C] pixels of each word.
        areas: band around edges -> its pixels in the whole image, with ground truth or without.
    """

    shape: tuple[int, int]
    bitmap: NDArray[np.uint8] | None
    codes: NDArray[Any]
    table: Words
    absent: dict[str, str]
    counts: NDArray[np.int64]
    areas: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_words(
        cls,
        words: Words,
        index: NDArray[Any] | None,
        shape: tuple[int, int],
        absent: dict[str, str],
        areas: dict[str, int] | None = None,
    ) -> RegionCodes:
        """Find the distinct words and number the pixels by them; `index` [n] ascends, None for all pixels."""
        table, inverse, counts = np.unique(words, return_inverse=True, return_counts=True)
        codes = inverse.reshape(-1).astype(np.uint16 if table.size <= 1 << 16 else np.uint32)
        bitmap = None
        if index is not None:
            mask = np.zeros(shape[0] * shape[1], np.bool_)
            mask[index] = True
            bitmap = np.packbits(mask)
        return cls(shape, bitmap, codes, table, absent, counts.astype(np.int64), areas or {})

    def index(self) -> NDArray[np.intp]:
        """Return the flat positions of the listed pixels, ascending."""
        size = self.shape[0] * self.shape[1]
        if self.bitmap is None:
            return np.arange(size)
        # As bool: numpy has a quicker way for them.
        return np.flatnonzero(np.unpackbits(self.bitmap, count=size).view(np.bool_))

    def at(self, index: NDArray[Any]) -> NDArray[Any]:
        """Return the codes [m] at flat positions of the map.

        Raises:
            DataError: a position has no code: the masks belong to other ground truth.
        """
        if self.bitmap is None:
            return self.codes.take(index)
        missing = np.iinfo(self.codes.dtype).max
        full = np.full(self.shape[0] * self.shape[1], missing, self.codes.dtype)
        full[self.index()] = self.codes
        found = full.take(index)
        # A table that uses all numbers leaves none to notice missing pixels by.
        if found.size and self.table.size <= missing and int(found.max()) >= self.table.size:
            raise _other_truth()
        return found

    def take(self, at: NDArray[Any] | slice, count: int) -> NDArray[Any]:
        """Return the codes [m] at places in the list of valid pixels; quicker than `at`.

        Args:
            at: places in the ground truth's own list (`ValidPixels.at`), in the order of flat positions.
            count: length of that list.

        Raises:
            DataError: the list has another length than the codes.
        """
        if count != self.codes.size:
            raise _other_truth()
        found: NDArray[Any] = self.codes[at] if isinstance(at, slice) else self.codes.take(at)
        return found

    def coverage(self, layout: Layout) -> dict[str, tuple[int, int]]:
        """Count per band around edges: its pixels with ground truth, and all of them."""
        return {name: (int(self.counts[layout.member(name, self.table)].sum()), n) for name, n in self.areas.items()}

    def to_bytes(self) -> bytes:
        """Serialise for the cache."""
        note = json.dumps([self.absent, self.areas, self.counts.tolist()], sort_keys=True).encode()
        bitmap = b"" if self.bitmap is None else self.bitmap.tobytes()
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
        absent, areas, counts = json.loads(text.tobytes())
        return cls(
            (height, width),
            bits if bitmap else None,
            codes.view(f"<u{itemsize}"),
            table.view("<u8"),
            absent,
            np.array(counts, np.int64),
            areas,
        )


def _other_truth() -> DataError:
    return DataError("region masks were made from other ground truth. Remove the region cache; it is made again.")
