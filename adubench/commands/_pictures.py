"""Finds what can be painted of a frame: through the paths a result recorded, or where the user says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adubench.errors import AdubenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adubench.datasets.frames import FrameKey
    from adubench.datasets.splits import Split
    from adubench.evaluators.result import EvaluationResult
    from adubench.reports.pictures import FrameMaps

MAP_SUFFIXES = (".png", ".npy", ".npz", ".zip", ".h5", ".hdf5")


@dataclass(slots=True)
class FrameFinder:
    """Reads images, truth, predictions and uncertainty of frames.

    Attributes:
        keys: frame name -> key of the data set.
        truth: ground truth, None where it was not found.
        inputs: images of the data set.
        maps: label -> (collection, frame name -> name in it).
        spreads: label -> the same for uncertainty.
        notes: what is missing, and why.
    """

    keys: dict[str, FrameKey] = field(default_factory=dict)
    truth: Any = None
    inputs: Any = None
    predictions: dict[str, tuple[Any, dict[str, str]]] = field(default_factory=dict)
    spreads: dict[str, tuple[Any, dict[str, str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, results: Sequence[EvaluationResult], data_root: Path | None, sources: dict[str, Path]) -> FrameFinder:
        """Open what the results recorded; what cannot be opened becomes a note."""
        finder = cls()
        finder._open_truth(results[0], data_root)
        for result in results:
            source = sources.get(result.label) or _path(result.provenance.get("source"))
            finder._open_maps(finder.predictions, result, source, "predictions")
            spread = _path(result.provenance.get("uncertainty_maps"))
            if spread is not None:
                finder._open_maps(finder.spreads, result, spread, "uncertainty maps")
        return finder

    def _open_truth(self, result: EvaluationResult, data_root: Path | None) -> None:
        from adubench.datasets.frame_inputs import open_inputs
        from adubench.datasets.ground_truth import FolderGroundTruth, open_ground_truth
        from adubench.datasets.splits import load_split

        root = data_root or _path(result.provenance.get("data_root"))
        gt = _path(result.provenance.get("ground_truth"))
        split: Split | None = None
        try:
            if result.split is not None:
                split = load_split(result.split, root or gt)
                kind = str(result.protocol.get("ground_truth", "improved"))
                self.truth = open_ground_truth(split, gt_root=gt, data_root=root, kind=kind)
            elif gt is not None:
                self.truth = FolderGroundTruth(gt, scale=256.0)
            else:
                self.notes.append("no ground-truth pictures: the result does not say where its truth lies.")
                return
            self.keys = {frame.name: frame for frame in self.truth.frames}
            self.inputs = open_inputs(split, self.truth, root, gt)
        except (AdubenchError, OSError) as error:
            self.notes.append(f"no pictures of images and ground truth: {error} Say where with --data-root.")

    def _open_maps(
        self, table: dict[str, tuple[Any, dict[str, str]]], result: EvaluationResult, source: Path | None, what: str
    ) -> None:
        from adubench.datasets.frames import driving_stereo_stem, parse_kitti
        from adubench.evaluators.predictions import match_by_alias, match_by_stem
        from adubench.io.collection import open_maps

        if source is None or not source.exists() or (source.is_file() and source.suffix.lower() not in MAP_SUFFIXES):
            where = "not recorded" if source is None else str(source)
            if what == "predictions":
                self.notes.append(
                    f"no pictures of {result.label}: its predictions are not on disk ({where}); --source says where."
                )
            return

        def identify(name: str) -> str | None:
            frame = parse_kitti(name)
            return frame.name if frame is not None else driving_stereo_stem(name)

        names = [str(frame) for frame in result.per_image["frame"]]
        try:
            maps = open_maps(source, what=what, png_scale=float(result.provenance.get("png_scale", 256.0)))
            if result.split is None:
                matching = match_by_stem(names, maps)
            else:
                aliases = {name: self.keys[name].aliases() for name in names if name in self.keys}
                matching = match_by_alias(names, maps, identify=identify, aliases=aliases)
        except (AdubenchError, OSError) as error:
            self.notes.append(f"no pictures of the {what} of {result.label}: {error}")
            return
        if what == "predictions" and result.provenance.get("kind", "depth") != "depth":
            self.notes.append(f"no pictures of {result.label}: its predictions are {result.provenance['kind']}.")
            return
        table[result.label] = (maps, dict(matching.keys))

    def maps(self, frame: str) -> FrameMaps:
        """Read everything there is of a frame; what cannot be read becomes a note."""
        from adubench.io.images import read_rgb
        from adubench.reports.pictures import FrameMaps

        key = self.keys.get(frame)
        truth = image = None
        if key is not None:
            truth = self._tried(lambda: self.truth.read(key))
            path = self.inputs.image_path(key) if self.inputs is not None else None
            image = self._tried(lambda: read_rgb(path)) if path is not None else None
        return FrameMaps(truth, image, self._read(self.predictions, frame), self._read(self.spreads, frame))

    def _read(self, table: dict[str, tuple[Any, dict[str, str]]], frame: str) -> dict[str, Any]:
        found = {}
        for label, (maps, names) in table.items():
            if frame in names:
                values = self._tried(lambda maps=maps, name=names[frame]: maps.read(name).quantity())
                if values is not None:
                    found[label] = values
        return found

    def _tried(self, read: Any) -> Any:
        try:
            return read()
        except (AdubenchError, OSError, AttributeError) as error:
            note = f"a picture is missing: {error}"
            if note not in self.notes:
                self.notes.append(note)
            return None


def _path(value: Any) -> Path | None:
    return Path(str(value)) if value else None
