"""Sections of recipes that learn from a teacher's stored depth maps: TIE-KD and its response baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from adubench.recipes.section import Count, Fraction, NotNegative, Positive, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adubench.recipes.schema import Recipe

MAP_METHODS = ("tie-kd", "response-kd")
"""Methods that learn from stored teacher maps, and from nothing else."""
TRUTH_METHODS = ("sparse-si", "adabins", "bts")
"""Methods with a network of section `model` that learn from ground truth."""
KB_ROWS = 352
#: Method -> family of its network, None for any with a depth output.
FAMILIES = {"tie-kd": "densedepth", "response-kd": "densedepth", "sparse-si": "densedepth", "adabins": "adabins",
            "bts": "bts"}  # fmt: skip


class TeacherMapsSection(Section):
    """Where a teacher's maps lie, and what is known about them.

    Attributes:
        path: folder or HDF5 file written by `adubench predict TEACHER --layout tie-kd`; usually `--teacher-maps`.
        release: the maps are those of the TIE-KD release, or of another program in its layout, and have no record.
        weights_sha256: hash of the teacher's checkpoint file, when only its maps are wanted; `--teacher FILE` sets it.
        any_list: take maps that were predicted for another list of frames, as long as every frame has one.
    """

    path: str | None = None
    release: bool = False
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    any_list: bool = False


class TieKDSection(Section):
    """Loss of TIE-KD; what is left out is the preset's.

    Attributes:
        preset: `as-intended` (sigma as the configurations declare it, teacher map rotated with the image) or
            `as-released` (sigma 0.5, map not rotated).
        dataset: `kitti` ignores 110 rows and has sigma 0.8, `nyu` none and 0.15.
        alpha: weight of the divergence of distributions; 1 - alpha is that of the SSIM term.
        sigma: metres, width of the teacher's distribution.
        factor: in front of the sum; 10 in the release, 1 in its ablations.
        ignore_top_rows: rows of the crop that do not count; None is the data set's.
        form: `dense` or `windowed`: the same numbers, less memory.
        rows_at_once: rows per chunk of the divergence, None for all.
    """

    preset: Literal["as-intended", "as-released"] = "as-intended"
    dataset: Literal["kitti", "nyu"] = "kitti"
    alpha: Fraction | None = None
    sigma: Positive | None = None
    factor: Positive | None = None
    ignore_top_rows: Count | None = None
    form: Literal["dense", "windowed"] = "windowed"
    rows_at_once: Annotated[int, Field(gt=0)] | None = None


class ResponseKDSection(Section):
    """A response baseline of TIE-KD, against the teacher's map or (method sparse-si) against ground truth.

    Attributes:
        loss: `mse`, `si`, `ssim` or a sum of two.
        weight: None for the published one (1.5 on SSIM).
        warmup_steps: steps during which SI has no variance.
    """

    loss: Literal["mse", "si", "ssim", "ssim+si", "ssim+mse"] = "ssim+si"
    weight: NotNegative | None = None
    warmup_steps: Count = 0


def check_tie_kd(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) of recipes with a network of section `model`."""
    wanted = FAMILIES.get(recipe.method)
    if wanted is None:
        return
    if recipe.model is None:
        yield "method", f"{recipe.method} trains a network of section 'model' (model: {{family: {wanted}, ...}})."
        return
    if recipe.model.family != wanted:
        yield "model.family", f"{recipe.method} trains a {wanted} network, not {recipe.model.family}."
    if recipe.stages != ("student",):
        yield "stages", f"{recipe.method} has one stage: expected [student]."
    head = recipe.model.keys.get("head", "dpm")
    if recipe.method == "tie-kd" and head != "dpm":
        yield "model.head", f"tie-kd learns distributions over depth bins: expected dpm, got {head}."
    if recipe.input.mode != "crop" and recipe.method in (*MAP_METHODS, "sparse-si"):
        yield "input.mode", "teacher maps and images are cut alike: expected crop."
    rows = ignored_rows(recipe)
    if recipe.method == "tie-kd" and rows >= recipe.input.height:
        yield (
            "tie_kd.ignore_top_rows",
            f"{rows} rows are all of a crop with {recipe.input.height} rows; they belong to KITTI's window of "
            f"{KB_ROWS} rows. Set tie_kd.ignore_top_rows: 0 for other images.",
        )


def ignored_rows(recipe: Recipe) -> int:
    """Rows of the crop that TIE-KD's loss leaves out."""
    if recipe.tie_kd.ignore_top_rows is not None:
        return recipe.tie_kd.ignore_top_rows
    return 110 if recipe.tie_kd.dataset == "kitti" else 0
