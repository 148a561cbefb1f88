"""What can be scored: a run, a checkpoint, a folder of images, a built-in method."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from sgbench.assets.tensors import fingerprint
from sgbench.backbones import build_backbone, load_weights, refuse_not_finite
from sgbench.core.errors import InputError, unknown
from sgbench.core.words import MOST_QUOTED, quoted, some
from sgbench.data import PackedImages, PackProgress, is_image_name, list_images, pack_set, refuse_overlap
from sgbench.scoring.upscaling import BUILTINS, WHOLE, Inference, Upscaler, from_folder, from_network
from sgbench.spec import Recipe, RunSpec, check_backbone, split_backbone
from sgbench.spec.stored import read_spec
from sgbench.store import Store
from sgbench.store.layout import has_weights, weights_of
from sgbench.store.rows import RunEnd, RunKind, RunRow
from sgbench.training import Checkpoints, read_weights_file
from sgbench.training.numerics import device_of_process


@dataclass(frozen=True)
class Subject:
    """Something that can be scored, before its test sets are loaded."""

    run_id: str
    name: str
    recipe: Recipe
    """Its scale and degradation determine how test sets are prepared."""
    row: RunRow | None
    """Row for the table ``runs``; None for a run, which already has one."""
    train: tuple[str, ...]
    """Names of its training set and of known sets in it, if known; then the recipe is that of its training."""
    upscaler: Callable[[PackedImages], Upscaler]
    """Returns an upscaler for a test set; refuses one for which a folder lacks images."""
    side_by_side: bool = False
    """Whether several images may be upscaled at once; a network uses all threads and much memory for one."""
    path: Path | None = None
    """The file or folder whose name begins its name; None if it is named otherwise."""


def find_subject(
    what: str, store: Store, *, backbone: str | None = None, scale: int = 4, inference: Inference = WHOLE
) -> Subject:
    """Find out what a person wants scored.

    Args:
        what: Name of a built-in, a checkpoint file, a folder of super-resolved images or of one such folder for each
            test set, which has its name, or a run id or its beginning; all but a run may be given a name, as in
            ``SwinIR=results/Set5``.
        store: The store to look for a run in.
        backbone: Backbone of a checkpoint that names none; or a plug-in, whose code is run only if it is named here.
        scale: Scale of a subject that does not record its own.
        inference: How a network is applied to an image. A run that is not applied to whole images becomes a separate
            checkpoint, so that its scores are never mistaken for the run's.

    Raises:
        InputError: If it is none of these, a checkpoint does not fit, or the inference needs a network.
    """
    path, device = Path(what), device_of_process()
    name, given, named = what.partition("=")
    if given and "/" not in name and not path.exists():
        return _with_name(name, find_subject(named, store, backbone=backbone, scale=scale, inference=inference))
    if inference != WHOLE and (what in BUILTINS or path.is_dir()):
        kind = "a built-in method" if what in BUILTINS else "a folder of images"
        raise InputError(f"only a network can be scored with {inference}; '{what}' is {kind}.")
    if what in BUILTINS:
        return _described(RunKind.BUILTIN, f"builtin {what}", what, scale, lambda images: BUILTINS[what])
    if path.is_dir():
        return replace(_folder(path, scale), path=path.resolve())
    if "://" in what:
        return _checkpoint(what, backbone, scale, inference, device)
    if path.is_file():
        if is_image_name(path.name):
            raise InputError(f"single images cannot be scored; give their folder, '{path.parent}'.")
        subject = _checkpoint(str(path.absolute()), backbone, scale, inference, device)
        return replace(subject, path=path.absolute())
    if path.exists():
        raise InputError(f"'{what}' is neither a file nor a folder; a checkpoint or a folder of images is needed.")
    if re.fullmatch(r"[0-9a-f]{4,12}", what):
        return _run(what, store, backbone, inference, device)
    error = str(unknown("subject", what, BUILTINS)).removesuffix(".")
    raise InputError(f"{error}, a run id, a checkpoint file, or a folder of images.")


def _folder(path: Path, scale: int) -> Subject:
    """Return a folder of images, or of folders of images that are named after test sets, as a subject."""
    if direct := any(is_image_name(each.name) for each in path.iterdir()):
        found = [(file.name, file) for file in list_images(path)]
    else:
        found = [(f"{file.parent.name}/{file.name}", file) for file in _images_below(path, "*/*")]
    if not found:
        if folders := list(dict.fromkeys(str(file.parent) for file in _images_below(path, "*/*/*"))):
            raise InputError(f"'{path}' holds no image, but folders in it do; give one of them: {some(folders, 3)}.")
        list_images(path)  # refuses it

    def upscaler(images: PackedImages) -> Upscaler:
        folder = path if direct else path / images.name
        if not folder.is_dir():
            there = some(sorted({file.parent.name for _, file in found}))
            raise InputError(f"'{path}' has no images itself, and no folder '{images.name}' of them, only {there}.")
        return from_folder(folder, images)

    content = " ".join(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for name, file in found)
    return _described(RunKind.FOLDER, content, path.resolve().name, scale, upscaler)


def _images_below(folder: Path, pattern: str) -> list[Path]:
    files = sorted(path for path in folder.glob(pattern) if is_image_name(path.name) and path.is_file())
    return [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def distinct(subjects: Sequence[Subject], store: Store) -> list[Subject]:
    """Return subjects with as much of their paths in their names as distinguishes them, or as they have in a store.

    So the folders ``HAT/visualization/Set5`` and ``SwinIR/visualization/Set5`` are not both called Set5.
    """
    names: dict[str, list[str]] = {}
    for subject in subjects:
        choices = [subject.name, *_longer_names(subject)]
        known = (store.run(subject.run_id) or {}).get("name")
        names[subject.run_id] = choices[choices.index(known) if known in choices else 0 :]
    while True:
        counts = Counter(choices[0] for choices in names.values())
        clashing = [choices for choices in names.values() if counts[choices[0]] > 1 and len(choices) > 1]
        if not clashing:
            return [_named(subject, names[subject.run_id][0]) for subject in subjects]
        for choices in clashing:
            del choices[0]


def _longer_names(subject: Subject) -> list[str]:
    """Return the names of a subject with ever more of its path, if it is named after that."""
    if subject.path is None:
        return []
    parts, rest = subject.path.parts[1:], subject.name.removeprefix(subject.path.name)
    return [f"{'/'.join(parts[-length:])}{rest}" for length in range(2, len(parts) + 1)]


def _with_name(name: str, subject: Subject) -> Subject:
    """Return a subject with the name that a person gives it.

    Raises:
        InputError: If it is a run, or the name cannot be shown.
    """
    if subject.row is None:
        raise InputError(
            f"'{subject.run_id}' is a run, which has a name already ({subject.name}); leave '{name}=' out."
        )
    if not name.strip() or not name.isprintable() or len(name) > MOST_QUOTED:
        raise InputError(f"{quoted(name)} is no name for a table; up to {MOST_QUOTED} printable characters are needed.")
    return replace(_named(subject, name), path=None)


def merged(subjects: Iterable[Subject]) -> list[Subject]:
    """Return each subject once; a subject named in several ways keeps all names."""
    equal: dict[str, list[Subject]] = {}
    for subject in subjects:
        equal.setdefault(subject.run_id, []).append(subject)
    return [
        same[0]
        if len(names := list(dict.fromkeys(each.name for each in same))) == 1
        else replace(_named(same[0], " = ".join(names)), path=None)
        for same in equal.values()
    ]


def _named(subject: Subject, name: str) -> Subject:
    return replace(subject, name=name, row=subject.row and {**subject.row, "name": name})


def pack_test(subject: Subject, test: str, progress: PackProgress | None = None) -> PackedImages:
    """Pack a test set as a subject needs it, or find it packed.

    Raises:
        InputError: If the set is not available, or the subject was trained on it.
    """
    if subject.train:
        refuse_overlap(subject.train, [test])
    return pack_set(test, "test", subject.recipe, progress)


def trained(spec: RunSpec, store: Store) -> Subject:
    """Return a run as a subject, from its specification and its final weights.

    Raises:
        FileNotFoundError: If it has no final weights.
        InputError: If they do not fit its backbone.
    """
    assert spec.run_id is not None  # only what was trained has weights
    network, device = _final_network(spec, store), device_of_process()
    return Subject(
        run_id=spec.run_id,
        name=str(spec),
        recipe=spec.recipe,
        row=None,
        train=spec.train.sets,
        upscaler=lambda images: from_network(network, spec.recipe, device),
    )


def _final_network(spec: RunSpec, store: Store) -> nn.Module:
    run_id = str(spec.run_id)
    network = build_backbone(spec.backbone, spec.recipe.scale)
    weights = Checkpoints(store.storage, run_id).load_weights()
    load_weights(network, weights, source=weights_of(run_id), name=spec.backbone)
    return network


def _content_id(kind: RunKind, scale: int, content: str) -> str:
    """Return the id of something that was not trained here: a hash of its content."""
    return hashlib.sha256(f"{kind} x{scale} {content}".encode()).hexdigest()[:12]


def _described(
    kind: RunKind, content: str, name: str, scale: int, upscaler: Callable[[PackedImages], Upscaler]
) -> Subject:
    """Return a subject known only by its content."""
    run_id = _content_id(kind, scale, content)
    row: RunRow = {"run_id": run_id, "kind": kind, "name": name, "scale": scale, "status": RunEnd.DONE}
    # The degradation of the test sets is the default, that of the published benchmarks.
    return Subject(run_id, name, Recipe.model_validate({"scale": scale}), row, (), upscaler, side_by_side=True)


def _checkpoint(path: str, backbone: str | None, scale: int, inference: Inference, device: torch.device) -> Subject:
    weights, fields = read_weights_file(path)
    made = _made(fields, path, backbone) if fields else None
    if not made and not backbone:
        raise InputError(f"'{path}' does not name its backbone; give it with --backbone.")
    name = made.backbone if made else check_backbone(str(backbone))
    recipe = made.recipe if made else Recipe.model_validate({"scale": scale})
    network = build_backbone(name, recipe.scale)
    load_weights(network, weights, source=path, name=name)
    refuse_not_finite(network.state_dict(), source=path)
    return _network(Path(path).name, name, network, recipe, made, inference, device)


def _network(
    label: str,
    backbone: str,
    network: nn.Module,
    recipe: Recipe,
    made: RunSpec | None,
    inference: Inference,
    device: torch.device,
) -> Subject:
    """Return a network with its weights as a subject, whichever file they are from."""
    content = f"{backbone} {fingerprint(network.state_dict())}"
    how = str(inference)
    run_id = _content_id(RunKind.CHECKPOINT, recipe.scale, f"{content} {how}" if how else content)
    row: RunRow = {
        "run_id": run_id,
        "kind": RunKind.CHECKPOINT,
        "name": f"{label} ({how})" if how else label,
        "scale": recipe.scale,
        "status": RunEnd.DONE,
        "backbone": backbone,
        "size": split_backbone(backbone)[1],
    }
    if made:
        row |= {"loss": str(made.loss), "train": made.train.name}
    return Subject(
        run_id=run_id,
        name=row["name"],
        recipe=recipe,
        row=row,
        train=made.train.sets if made else (),
        upscaler=lambda images: from_network(network, recipe, device, inference),
    )


def _made(fields: object, source: str, backbone: str | None) -> RunSpec:
    """Read the specification with which weights were trained.

    Args:
        fields: The specification.
        source: The file, for messages.
        backbone: The backbone that the person names; plug-in code that only the file names is not imported.

    Raises:
        InputError: If it cannot be read, is for another backbone than the person names, or for a plug-in that the
            person has not named.
    """
    made = read_spec(fields, f"'{source}'")
    if backbone and check_backbone(backbone) != made.backbone:
        raise InputError(f"'{source}' is a checkpoint of backbone '{made.backbone}', not '{backbone}'.")
    if ":" in made.backbone and not backbone:
        raise InputError(
            f"'{source}' needs the plug-in '{made.backbone}'; to let its code run, name it with --backbone."
        )
    try:
        check_backbone(made.backbone)
    except InputError as error:  # its family is not registered here
        raise InputError(f"'{source}' has a specification that cannot be read: backbone: {error}") from error
    return made


def _run(beginning: str, store: Store, backbone: str | None, inference: Inference, device: torch.device) -> Subject:
    rows = [row for run_id, row in store.rows().items() if run_id.startswith(beginning)]
    if len(rows) != 1:
        how = f"{len(rows)} runs whose ids begin with it" if rows else "no such run"
        raise InputError(f"run '{beginning}': '{store.storage}' has {how}; 'sgbench plan' lists the ids.")
    row = rows[0]
    if row["kind"] != RunKind.TRAIN or row["status"] != RunEnd.DONE or not has_weights(store.storage, row["run_id"]):
        raise InputError(f"run '{row['run_id']}' ({row['name']}) has no final weights to score.")
    made = _made(row["spec"], f"run {row['run_id']}", backbone)
    if made.run_id != row["run_id"]:
        raise InputError(f"run '{row['run_id']}' ({row['name']}) has the specification of run {made.run_id}.")
    if inference == WHOLE:
        return trained(made, store)
    return _network(row["name"], made.backbone, _final_network(made, store), made.recipe, made, inference, device)
