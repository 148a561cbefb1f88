"""The weights with which the runs of a sweep start: read from a checkpoint, checked, and kept in the results store.

Whoever plans a sweep reads the checkpoint, loads it into the backbone, and hashes the tensors that the network then
starts with, by its own names for them. So the hash, and with it the id of a run, is the same for every format and
spelling of the same weights. A sweep puts these tensors into its store below ``init/``, from where each run reads them
on whatever machine it is; from then on the checkpoint is not needed.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sgbench.assets.tensors import fingerprint
from sgbench.backbones import Fit, build_backbone, load_fitting, load_weights, refuse_not_finite
from sgbench.core.download import DownloadError, Progress, download
from sgbench.core.errors import InputError, MissingDataError
from sgbench.core.files import cache_folder
from sgbench.core.storage import Storage
from sgbench.core.words import listed, quoted
from sgbench.data import refuse_overlap
from sgbench.spec import Init, RunSpec, SweepSpec
from sgbench.spec.stored import read_spec
from sgbench.store import Store
from sgbench.store.layout import has_weights, inits, weights_of
from sgbench.store.rows import RunEnd, RunKind
from sgbench.training import read_init, read_weights_file, write_init

RUN = "run:"
"""Begins the name of a run of the store whose final weights are meant."""


_ADDRESS = re.compile("https?://", re.IGNORECASE)

_HASHED = re.compile(r"https?://([^/@?#]+)/(?:[^?#]*/)?([\w.-]*-([0-9a-f]{8,64})\.\w+)", re.IGNORECASE)
"""Addresses of checkpoints whose names end in the first digits of their SHA-256, as those of torch hub do."""

_NAMED = 3
"""Tensors that a remark names."""


@dataclass(frozen=True)
class Start:
    """How the runs of a sweep start."""

    sweep: SweepSpec
    """The sweep, with the hash of the first weights in its recipe if it names some."""
    weights: Mapping[str, Tensor] | None = None
    """These weights; None if it names none, or if only the store has them."""
    remark: str = ""
    """What a person must know: which tensors are drawn from the seed, or that the checkpoint was not found."""

    @classmethod
    def of(cls, sweep: SweepSpec, storage: Storage, fetching: Progress | None = None) -> "Start":
        """Find the weights with which the runs of a sweep start, and check that they fit its backbone.

        A checkpoint that does not exist is looked up by its name in the store's record of its runs.

        Args:
            sweep: The sweep.
            storage: The results store.
            fetching: Called as the bytes of a checkpoint arrive; without it, none is downloaded.

        Raises:
            MissingDataError: If the checkpoint does not exist, or is not downloaded, and is not on record.
            InputError: If it cannot be read, does not fit, has values that are not finite, or was trained on test
                images.
        """
        init = sweep.recipe.init
        if init is None or init.sha256 is not None:
            return cls(sweep)
        with explained():
            try:
                source, (weights, fields) = _read(init.name, storage, fetching)
            except MissingDataError as error:
                if (known := _on_record(sweep, init.name, Store(storage))) is None:
                    raise
                instead = f"those that the store has of it, {str(known.sha256)[:8]}, are used"
                return cls(_with(sweep, known), remark=f"recipe.init: {str(error).rstrip('.')}; {instead}.")
            _refuse_tested(fields, source, sweep)
            network, fit = _load(weights, source, sweep)
            loaded = {name: tensor for name, tensor in network.state_dict().items() if name not in fit.drawn}
            refuse_not_finite(loaded, source=source)
        init = Init(name=source, sha256=fingerprint(loaded), drawn=fit.drawn)
        return cls(_with(sweep, init), loaded, _remark(source, fit))

    def keep(self, storage: Storage) -> None:
        """Put the weights into the results store unless it has them; the caller may write there.

        Raises:
            InputError: If neither this nor the store has them, or what only the store has is damaged or does not fit.
        """
        init = self.sweep.recipe.init
        if init is None:
            return
        try:
            kept, source = read_init(storage, str(init.sha256))
        except InputError as error:
            if self.weights is None:
                raise InputError(f"recipe.init: the store lacks the weights of {quoted(init.name)}: {error}") from error
            source = None
        if self.weights is not None:
            if source != init.name:  # by which the next command looks for it
                self.write(storage)
            return
        with explained():
            _, fit = _load(kept, init.name, self.sweep)
            if fit.unused:
                raise InputError(f"the weights of {quoted(init.name)} in the store are of another network.")

    def write(self, storage: Storage) -> str:
        """Write the weights, which must be known, and return the name of their file."""
        assert self.weights is not None
        assert self.sweep.recipe.init is not None
        return write_init(storage, self.weights, self.sweep.recipe.init.name)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Say in an error which field of the sweep it is about."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"recipe.init: {error}") from error


def first_weights(spec: RunSpec, storage: Storage) -> dict[str, Tensor] | None:
    """Return the weights with which a run starts, from the results store; None if all are drawn from its seed.

    Raises:
        InputError: If the store lacks them, or they are damaged.
    """
    return read_init(storage, str(spec.recipe.init.sha256))[0] if spec.recipe.init else None


def is_remote(name: str) -> bool:
    """Return whether a checkpoint is named by a URI, which means the same on every machine."""
    return re.match("[a-z0-9+.-]+://", name, re.IGNORECASE) is not None


def label(name: str) -> str:
    """Return what a checkpoint is called on record: ``run:ID``, or its file's name without folders and options."""
    if name.startswith(RUN):
        return name
    path = name.partition("?")[0] if is_remote(name) else name
    return path.rstrip("/").rpartition("/")[2]


def _with(sweep: SweepSpec, init: Init) -> SweepSpec:
    return sweep.model_copy(update={"recipe": sweep.recipe.model_copy(update={"init": init})})


def _read(
    name: str, storage: Storage, fetching: Progress | None
) -> tuple[str, tuple[dict[str, Tensor], dict[str, Any] | None]]:
    """Return what a checkpoint is called, its tensors, and the specification of the run that made it, if it has one.

    Raises:
        MissingDataError: If it does not exist.
        InputError: If it cannot be read.
    """
    if name.startswith(RUN):
        run_id = _finished(name.removeprefix(RUN), Store(storage))
        return f"{RUN}{run_id}", read_weights_file(weights_of(run_id), storage)
    path = str(_downloaded(name, fetching)) if _ADDRESS.match(name) else name
    return label(name), read_weights_file(path)


def server_of(address: str) -> str | None:
    """Return the server from which a checkpoint can be downloaded; None for what has no ``http`` address.

    Raises:
        InputError: If it has one and cannot be checked.
    """
    return _parts(address)[0] if _ADDRESS.match(address) else None


def _parts(address: str) -> tuple[str, str, str]:
    """Return the server, the name of the file, and the first digits of its hash.

    Raises:
        InputError: If the name does not have them.
    """
    if not (match := _HASHED.fullmatch(address)):
        raise InputError(
            f"{quoted(address, 150)} does not end in digits of its SHA-256, as in 'net-6b446fab.pt', so it cannot be "
            "checked; download it yourself, and give its path."
        )
    return match[1], match[2], match[3].lower()


def _downloaded(address: str, fetching: Progress | None) -> Path:
    """Return the file of a checkpoint that has an address, which is downloaded if it is not in the cache.

    Raises:
        MissingDataError: If it is not there and is not to be downloaded, or cannot be.
        InputError: As `server_of` raises it, or if another file arrives.
    """
    _, file, digits = _parts(address)
    path = cache_folder() / "checkpoints" / file
    if path.exists():
        return path
    by_hand = "download it yourself, and give --set recipe.init=FILE"
    if fetching is None:
        why = f"{quoted(address, 150)} is not on this machine: 'sgbench sweep --fetch' downloads it"
        raise MissingDataError(f"{why}, or {by_hand}.")
    try:
        download(address, path, digest=f"sha256:{digits}", progress=fetching)
    except DownloadError as error:
        raise MissingDataError(f"{error}; run the same command again to resume, or {by_hand}.") from error
    return path


def _finished(beginning: str, store: Store) -> str:
    """Return the id of a run that has final weights.

    Args:
        beginning: How its id begins.
        store: The store to look for it in.

    Raises:
        MissingDataError: If the store has no such run, or the run no weights.
        InputError: If it is no beginning of an id, or of several.
    """
    if not re.fullmatch("[0-9a-f]{4,12}", beginning):
        raise InputError(f"{quoted(RUN + beginning)} is not run: and a run's id, or its first 4 or more digits.")
    rows = store.rows()
    known = {*rows, *(planned.run_id for planned in store.planned())}
    found = [run_id for run_id in known if run_id.startswith(beginning)]
    if len(found) > 1:
        raise InputError(f"run '{beginning}': '{store.storage}' has {len(found)} runs whose ids begin with it.")
    if not found:
        raise MissingDataError(f"run '{beginning}': '{store.storage}' has no such run; 'sgbench query' lists them.")
    (run_id,) = found
    row = rows.get(run_id)
    if row is None or row["status"] != RunEnd.DONE:
        raise MissingDataError(f"run {run_id} is {row['status'] if row else 'not done'}; a finished run is needed.")
    if row["kind"] != RunKind.TRAIN or not has_weights(store.storage, run_id):
        raise MissingDataError(f"run {run_id} ({row['name']}) has no final weights in '{store.storage}'.")
    return run_id


def _on_record(sweep: SweepSpec, name: str, store: Store) -> Init | None:
    """Return the weights of a name that a store has, or with which runs on record in it have started.

    Returns:
        None unless there are exactly one that fit the sweep.
    """
    recipe, backbone = sweep.recipe, _backbone(sweep)
    rows = [row for row in store.rows().values() if row["kind"] == RunKind.TRAIN]
    rows += [planned.run for planned in store.planned()]
    specs = (read_spec(row["spec"], f"run {row['run_id']}") for row in rows)
    found = {
        spec.recipe.init
        for spec in specs
        if (spec.backbone, spec.recipe.scale) == (backbone, recipe.scale)
        and spec.recipe.init
        and _is_called(spec.recipe.init.name, name)
        and (recipe.init_partial or not spec.recipe.init.drawn)
    }
    for sha256 in inits(store.storage):
        with contextlib.suppress(InputError):  # it is damaged, or of another network
            weights, source = read_init(store.storage, sha256)
            if isinstance(source, str) and _is_called(source, name):
                _, fit = _load(weights, source, sweep)
                if not fit.unused:
                    found.add(Init(name=source, sha256=sha256, drawn=fit.drawn))
    return found.pop() if len(found) == 1 else None


def _is_called(kept: str, name: str) -> bool:
    """Return whether a checkpoint on record is the one that a person names, who may give the beginning of an id."""
    return kept.startswith(name) if name.startswith(RUN) else kept == label(name)


def _refuse_tested(fields: dict[str, Any] | None, source: str, sweep: SweepSpec) -> None:
    """Refuse weights that, as far as their file tells, were trained on test images of a sweep."""
    trained = None
    with contextlib.suppress(InputError):  # another version may have written it, or another program
        trained = read_spec(fields, source)
    if trained:
        refuse_overlap(trained.train.sets, sweep.tests)


def _backbone(sweep: SweepSpec) -> str:
    """Return the backbone of a sweep that has only one."""
    return sweep.grids[0].backbones[0]


def _load(weights: Mapping[str, Tensor], source: str, sweep: SweepSpec) -> tuple[nn.Module, Fit]:
    """Load weights into a new network of a sweep.

    Returns:
        The network, and which of its tensors were loaded.

    Raises:
        InputError: If they do not fit.
    """
    name, partial = _backbone(sweep), sweep.recipe.init_partial
    with torch.random.fork_rng(devices=[]):
        network = build_backbone(name, sweep.recipe.scale)
    if partial:
        return network, load_fitting(network, weights, source=source, name=name)
    try:
        load_weights(network, weights, source=source, name=name)
    except InputError as misfit:
        with contextlib.suppress(InputError):
            fit = load_fitting(network, weights, source=source, name=name)
            some = f"{len(fit.loaded)} of the network's {len(fit.loaded + fit.drawn)} tensors"
            hint = f"recipe.init_partial=true would load {some}"
            misfit = InputError(f"{str(misfit).rstrip('.')}; {hint}.")
        raise misfit from None
    return network, Fit(tuple(network.state_dict()), (), ())


def _remark(source: str, fit: Fit) -> str:
    """Return what of a network a checkpoint does not give, and what of the checkpoint is not used."""
    parts = [
        f"{what}: {_some(names)}"
        for what, names in (("drawn from the seed", fit.drawn), ("not used", fit.unused))
        if names
    ]
    whole = len(fit.loaded + fit.drawn)
    given = f"recipe.init: {quoted(source)} gives {len(fit.loaded)} of the network's {whole} tensors"
    return f"{given}; {'; '.join(parts)}." if parts else ""


def _some(names: Sequence[str]) -> str:
    named = [quoted(name) for name in names[:_NAMED]]
    return listed([*named, *([f"{len(names) - _NAMED} more"] if len(names) > _NAMED else [])])
