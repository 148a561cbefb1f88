"""Saved images of a store, embedded in a page for comparison with each other and with HR, or without it LR."""

import base64
import dataclasses
import io
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sgbench.analysis.view import BASELINE, Filters, Run, View, direction
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.core.words import listed, natural, plural
from sgbench.data import PackedImages, decode_image
from sgbench.report.compare import shown_number
from sgbench.report.figures.saved_images import given, whole
from sgbench.report.tables.model import metric_order
from sgbench.report.tables.paper_layouts import SG
from sgbench.spec import Recipe
from sgbench.spec.stored import read_recipe
from sgbench.store import Dataset
from sgbench.store.layout import image_of, kept_images

IMAGES = 5
"""Default number of images per test set."""

MOST_BYTES = 20_000_000
"""Maximum size of all encoded images together, so that a page can be sent around."""

GIVEN = ("HR", "LR")
"""The keys of the image of the test set: with HR, and without."""

_WEBP_SIDE = 16383
"""The longest side of a WebP image, in pixels."""


@dataclass(frozen=True)
class Shown:
    """An image of a test set, from several sides.

    Attributes:
        name: Its own.
        width: In pixels.
        height: In pixels.
        sources: Data URIs, by run id or one of `GIVEN`.
        scores: By run id and metric: as it is read, and its value.
    """

    name: str
    width: int
    height: int
    sources: Mapping[str, str]
    scores: Mapping[str, Mapping[str, tuple[str, float]]]


@dataclass(frozen=True)
class Gallery:
    """Images to compare.

    Attributes:
        sets: Images by test set.
        labels: What each side is called, by run id or one of `GIVEN`, in reading order.
        directions: Of the metrics of single images: ``lower``, ``higher``, or none.
        pair: The sides that are shown first.
        notes: What was left out, one sentence each.
    """

    sets: Mapping[str, Sequence[Shown]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    directions: Mapping[str, str | None] = field(default_factory=dict)
    pair: tuple[str, str] = ("", "")
    notes: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """Return it as plain values for the page's script."""
        sets = [
            {"name": name, "images": [dataclasses.asdict(image) for image in images]}
            for name, images in self.sets.items()
        ]
        return {"sets": sets, "labels": self.labels, "directions": self.directions, "pair": self.pair}


class _Place(NamedTuple):
    """An image of a test set, by its folder and name in a store."""

    folder: str
    image: str


def degradations(view: View, filters: Filters, storage: Storage) -> list[Recipe]:
    """Return the recipes whose scale and degradation determine how HR images are prepared for the saved ones."""
    kept = set(runs_with_images(storage))
    ids = [run.run_id for run in view.runs(filters) if run.run_id in kept]
    rows = view.rows(Filters(runs=ids)).select(["run_id", "scale", "spec"]).sort_by("run_id")
    recipes = [_recipe(row) for row in rows.to_pylist()]
    return list({(recipe.scale, str(recipe.degradation)): recipe for recipe in recipes}.values())


def gallery(view: View, filters: Filters, storage: Storage, tests: Sequence[PackedImages], images: int) -> Gallery:
    """Collect the saved images of a store.

    Args:
        view: The store.
        filters: What of it is shown.
        storage: Where it lies.
        tests: Test sets whose images are available locally; those of other pixels than the saved images are left out.
        images: The most of each test set, in the order of their names.

    Raises:
        InputError: If an image cannot be read, or has not the size of its others.
    """
    groups = view.groups(filters)
    labels = dict(zip(GIVEN, GIVEN, strict=True))
    labels |= {run.run_id: g.named(run) for g in sorted(groups, key=lambda g: not g.loss) for run in g.runs}
    runs = {run.run_id: run for group in groups for run in group.runs}
    names = _set_names(view, filters)
    there = _files(storage, set(runs), set(names))
    packed = {Dataset(each.name, each.sha256).versioned: each for each in tests}
    if not there:
        return Gallery()
    sets: defaultdict[str, list[Shown]] = defaultdict(list)
    used = 0
    kept, left_out = _first(there, images)
    shown_runs = {run_id for place in kept for run_id in there[place]}
    scores, directions = _scores(view, replace(filters, runs=shown_runs), {place.image for place in kept})
    for at, place in enumerate(kept):
        shown = _read(place, there[place], storage, packed.get(place.folder), scores)
        used += sum(map(len, shown.sources.values()))
        if used > MOST_BYTES:
            left_out += kept[at:]
            break
        sets[place.folder].append(shown)
    sides = {side for each in sets.values() for image in each for side in image.sources}
    return Gallery(
        {names[folder]: sets[folder] for folder in sorted(sets, key=lambda folder: natural(names[folder]))},
        {key: label for key, label in labels.items() if key in sides},
        directions,
        _pair(runs, [key for key in labels if key in sides]),
        tuple(_notes(left_out, kept, names, packed)),
    )


def runs_with_images(storage: Storage) -> list[str]:
    """Return the ids of the runs that have saved images."""
    return sorted({run_id for run_id, _, _ in kept_images(storage)})


def _files(storage: Storage, runs: set[str], folders: set[str]) -> dict[_Place, list[str]]:
    """Return the runs that have each image."""
    found: defaultdict[_Place, list[str]] = defaultdict(list)
    for run_id, folder, image in kept_images(storage):
        if run_id in runs and folder in folders:
            found[_Place(folder, image)].append(run_id)
    return dict(found)


def _first(there: Mapping[_Place, list[str]], images: int) -> tuple[list[_Place], list[_Place]]:
    """Return the first images of each set, taking turns between sets, and the remaining ones."""
    by_set: defaultdict[str, list[_Place]] = defaultdict(list)
    for place in sorted(there, key=lambda place: (natural(place.folder), natural(place.image))):
        by_set[place.folder].append(place)
    ranks = [[place for place in rank if place] for rank in itertools.zip_longest(*by_set.values())]
    return list(itertools.chain(*ranks[:images])), list(itertools.chain(*ranks[images:]))


def _read(
    place: _Place,
    runs: Sequence[str],
    storage: Storage,
    packed: PackedImages | None,
    scores: Mapping[_Place, Mapping[str, Mapping[str, tuple[str, float]]]],
) -> Shown:
    sources: dict[str, str] = {}
    sizes: dict[tuple[int, int], str] = {}
    at = next((at for at, each in enumerate(packed.images if packed else ()) if each.name == place.image), None)
    if packed and at is not None:
        pixels = whole(packed, at)
        sources[given(packed)] = _uri(Image.fromarray(np.asarray(pixels)), None)
        sizes[pixels.shape[1], pixels.shape[0]] = given(packed)
    for run_id in runs:
        file = image_of(run_id, place.folder, place.image)
        content = storage.read(file)
        image = Image.fromarray(decode_image(content, storage.address(file)))
        sizes.setdefault(image.size, file)
        if len(sizes) > 1:
            (width, height), other = next(iter(sizes.items()))
            raise InputError(
                f"'{storage.address(file)}' is {image.width}×{image.height} pixels and '{other}' is {width}×{height}; "
                "images of one test set are of one size."
            )
        sources[run_id] = _uri(image, content)
    ((width, height),) = sizes
    return Shown(place.image, width, height, sources, scores.get(place, {}))


def _uri(image: Image.Image, png: bytes | None) -> str:
    """Return an image as a lossless data URI: WebP or PNG, whichever is smaller."""
    candidates = {} if png is None else {"png": png}
    if max(image.size) <= _WEBP_SIDE:
        buffer = io.BytesIO()
        image.save(buffer, format="WEBP", lossless=True, quality=50, method=4)
        candidates["webp"] = buffer.getvalue()
    if not candidates:
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        candidates["png"] = buffer.getvalue()
    form, content = min(candidates.items(), key=lambda item: len(item[1]))
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"


def _scores(
    view: View, filters: Filters, images: Collection[str]
) -> tuple[dict[_Place, dict[str, dict[str, tuple[str, float]]]], dict[str, str | None]]:
    """Return the scores of some images, by image, run and metric, and which values are better."""
    rows = view.of_images(filters, images)
    found: defaultdict[_Place, defaultdict[str, dict[str, tuple[str, float]]]] = defaultdict(lambda: defaultdict(dict))
    directions: dict[str, str | None] = {}
    columns = ["run_id", "dataset", "dataset_sha256", "image", "metric", "value", "protocol"]
    for row in sorted(rows.select(columns).to_pylist(), key=lambda row: metric_order(row["metric"])):
        directions[row["metric"]] = direction(row["protocol"])
        if row["value"] is not None:
            value = (shown_number(row["metric"], row["value"]), row["value"])
            found[_Place(_folder(row), row["image"])][row["run_id"]][row["metric"]] = value
    return {place: dict(by_run) for place, by_run in found.items()}, directions


def _set_names(view: View, filters: Filters) -> dict[str, str]:
    """Return the names of the test sets to show, by folder."""
    rows = view.totals(Filters(datasets=filters.datasets)).group_by(["dataset", "dataset_sha256"]).aggregate([])
    return {_folder(row): row["dataset"] for row in rows.to_pylist()}


def _folder(row: Mapping[str, Any]) -> str:
    """Return the folder in which `sgbench.scoring.subjects` keeps images of a score's test set."""
    digest = row["dataset_sha256"]
    return Dataset(row["dataset"].removesuffix(f"@{digest[:8]}"), digest).versioned


def _recipe(row: Mapping[str, Any]) -> Recipe:
    if row["spec"]:
        return read_recipe(row["spec"], f"run {row['run_id']}")
    return Recipe.model_validate({"scale": row["scale"]})


def _pair(runs: Mapping[str, Run], sides: Sequence[str]) -> tuple[str, str]:
    """Return the first pair to compare: L1 and another loss, if possible with the same backbone and seed."""
    shown = [runs[key] for key in sides if key in runs]
    if not shown:
        return "", ""
    first = next((run for run in shown if run.loss == BASELINE), shown[0])

    def rank(run: Run) -> list[bool]:
        unlike = (run.backbone != first.backbone, run.seed != first.seed)
        return [run is first, run.loss == first.loss, *unlike, run.loss != SG]

    return first.run_id, min(shown, key=rank).run_id if len(shown) > 1 else sides[0]


def _notes(
    left_out: Sequence[_Place], kept: Sequence[_Place], names: Mapping[str, str], packed: Mapping[str, PackedImages]
) -> Iterator[str]:
    counts: defaultdict[str, int] = defaultdict(int)
    for place in left_out:
        counts[names[place.folder]] += 1
    if counts:
        told = listed(f"{plural(count, 'image')} of {name}" for name, count in counts.items())
        yield f"Left out to keep the page small: {told}; sgbench report has --images for more, and filters for less."
    there = {place.folder for place in kept}
    for folder, images in packed.items():
        if folder not in there:
            yield f"The images of {images.name} that were given are not those of any saved image, and are left out."
