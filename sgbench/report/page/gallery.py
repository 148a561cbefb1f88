"""Saved images of a store, beside each other and beside HR, as a page carries them in itself."""

import base64
import dataclasses
import io
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sgbench.analysis.view import BASELINE, View, direction
from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.core.words import listed, natural, plural
from sgbench.data import PackedImages
from sgbench.report.page.chosen import Chosen
from sgbench.report.tables.model import metric_order, number
from sgbench.report.tables.paper_layouts import SG
from sgbench.spec import Recipe
from sgbench.spec.stored import read_recipe
from sgbench.store import Dataset

IMAGES = 5
"""How many images of a test set are shown, unless somebody says."""

MOST_BYTES = 20_000_000
"""Of all images together, as text: a page has to be sent around."""

HR = "HR"
"""The key of the image that the others are to be like."""

_WEBP_SIDE = 16383
"""Pixels: the longest side that a WebP has."""


@dataclass(frozen=True)
class Shown:
    """An image of a test set, from several sides.

    Attributes:
        name: Its own.
        width: In pixels.
        height: In pixels.
        sources: Data URIs, by run id or `HR`.
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
        labels: What each side is called, by run id or `HR`, in reading order.
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
        """Return it as plain values, for the page's own program."""
        sets = [
            {"name": name, "images": [dataclasses.asdict(image) for image in images]}
            for name, images in self.sets.items()
        ]
        return {"sets": sets, "labels": self.labels, "directions": self.directions, "pair": self.pair}


class _Place(NamedTuple):
    """An image of a test set, as the folder of a store calls them."""

    folder: str
    image: str


def degradations(chosen: Chosen, storage: Storage) -> list[Recipe]:
    """Return the recipes whose scale and degradation say how the HR images of saved ones are to be prepared."""
    runs = _by_id(chosen.shown)
    recipes = [_recipe(runs[run_id]) for run_id in runs_with_images(storage) if run_id in runs]
    return list({(recipe.scale, str(recipe.degradation)): recipe for recipe in recipes}.values())


def gallery(chosen: Chosen, storage: Storage, hr: Sequence[PackedImages], images: int) -> Gallery:
    """Collect the saved images of a store.

    Args:
        chosen: What of it is shown.
        storage: Where it lies.
        hr: Test sets whose HR images are at hand; those of other pixels than the saved images are left out.
        images: The most of each test set, in the order of their names.

    Raises:
        InputError: If an image cannot be read, or has not the size of its others.
    """
    runs = _by_id(chosen.shown)
    labels = _labels(runs.values())
    names = _set_names(chosen)
    there = _files(storage, set(runs), set(names))
    packed = {Dataset(each.name, each.sha256).versioned: each for each in hr}
    if not there:
        return Gallery()
    scores, directions = _scores(chosen.shown)
    sets: defaultdict[str, list[Shown]] = defaultdict(list)
    used = 0
    kept, left_out = _first(there, images)
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
    """Return the ids of the runs of which images were saved."""
    return sorted({name.split("/")[1] for name in storage.sizes("images")})


def _files(storage: Storage, runs: set[str], folders: set[str]) -> dict[_Place, list[str]]:
    """Return the runs that have each image."""
    found: defaultdict[_Place, list[str]] = defaultdict(list)
    for file in storage.sizes("images"):
        match file.split("/"):
            case [_, run_id, folder, name] if run_id in runs and folder in folders and name.endswith(".png"):
                found[_Place(folder, name.removesuffix(".png"))].append(run_id)
    return dict(found)


def _first(there: Mapping[_Place, list[str]], images: int) -> tuple[list[_Place], list[_Place]]:
    """Return the first images of each set, the first of all sets before the second of any, and the others."""
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
        pixels = packed.hr(at)
        sources[HR] = _uri(Image.fromarray(np.asarray(pixels)), None)
        sizes[pixels.shape[1], pixels.shape[0]] = HR
    for run_id in runs:
        file = f"images/{run_id}/{place.folder}/{place.image}.png"
        content = storage.read(file)
        try:
            image = Image.open(io.BytesIO(content)).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"'{storage.path(file)}' cannot be read as an image: {error}.") from error
        sizes.setdefault(image.size, file)
        if len(sizes) > 1:
            (width, height), other = next(iter(sizes.items()))
            raise InputError(
                f"'{storage.path(file)}' is {image.width}×{image.height} pixels and '{other}' is {width}×{height}; "
                "images of one test set are of one size."
            )
        sources[run_id] = _uri(image, content)
    ((width, height),) = sizes
    return Shown(place.image, width, height, sources, scores.get(place, {}))


def _uri(image: Image.Image, png: bytes | None) -> str:
    """Return an image as a data URI without any loss: as WebP, or as PNG where that is smaller."""
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


def _scores(shown: View) -> tuple[dict[_Place, dict[str, dict[str, tuple[str, float]]]], dict[str, str | None]]:
    """Return what a store has of single images, by image, run and metric, and which of its values are better."""
    rows = shown.of_images()
    found: defaultdict[_Place, defaultdict[str, dict[str, tuple[str, float]]]] = defaultdict(lambda: defaultdict(dict))
    directions: dict[str, str | None] = {}
    columns = ["run_id", "dataset", "dataset_sha256", "image", "metric", "value", "protocol"]
    for row in sorted(rows.select(columns).to_pylist(), key=lambda row: metric_order(row["metric"])):
        directions[row["metric"]] = direction(row["protocol"])
        if row["value"] is not None:
            value = (number(row["metric"], row["value"]).replace("-", "−"), row["value"])
            found[_Place(_folder(row), row["image"])][row["run_id"]][row["metric"]] = value
    return {place: dict(by_run) for place, by_run in found.items()}, directions


def _set_names(chosen: Chosen) -> dict[str, str]:
    """Return what the test sets that were asked for are called, by their folders."""
    rows = chosen.whole.results.totals.group_by(["dataset", "dataset_sha256"]).aggregate([]).to_pylist()
    asked = chosen.filters.datasets
    return {_folder(row): row["dataset"] for row in rows if asked is None or row["dataset"] in asked}


def _folder(row: Mapping[str, Any]) -> str:
    """Return the folder in which `sgbench.scoring.subjects` keeps images of a score's test set."""
    digest = row["dataset_sha256"]
    return Dataset(row["dataset"].removesuffix(f"@{digest[:8]}"), digest).versioned


def _by_id(shown: View) -> dict[str, dict[str, Any]]:
    columns = ["run_id", "kind", "name", "backbone", "loss", "seed", "scale", "spec"]
    return {row["run_id"]: row for row in shown.rows().select(columns).to_pylist()}


def _labels(runs: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return what each side is called: HR, trained runs, others."""
    ordered = sorted(
        runs,
        key=lambda row: (row["kind"] != "train", *(natural(row[name] or "") for name in ("backbone", "loss", "name"))),
    )
    return {HR: HR} | {row["run_id"]: row["name"] for row in ordered}


def _recipe(row: Mapping[str, Any]) -> Recipe:
    if row["spec"]:
        return read_recipe(row["spec"], f"run {row['run_id']}")
    return Recipe.model_validate({"scale": row["scale"]})


def _pair(runs: Mapping[str, Mapping[str, Any]], sides: Sequence[str]) -> tuple[str, str]:
    """Return what is compared first: L1 with another loss of the same backbone and seed, as far as there are such."""
    rows = [runs[key] for key in sides if key in runs]
    if not rows:
        return "", ""
    first = next((row for row in rows if row["loss"] == BASELINE), rows[0])

    def rank(row: Mapping[str, Any]) -> list[bool]:
        alike = [row[name] != first[name] for name in ("backbone", "seed")]
        return [row is first, row["loss"] == first["loss"], *alike, row["loss"] != SG]

    return first["run_id"], min(rows, key=rank)["run_id"] if len(rows) > 1 else sides[0]


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
            yield f"The HR images of {images.name} that were given are not those of any saved image, and are left out."
