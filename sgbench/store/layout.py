"""What is where in a store, what belongs to a run beside its rows, and what of all that a store has made itself."""

import re

from sgbench.core.storage import PART, UNFINISHED, Storage

MARK = "sgbench.json"
"""File at the root that marks a folder as a store; the first command that writes there creates it."""

SCRATCH = ".ray"
"""Folder of a store for temporary files of a sweep or merge; see `discard_scratch`."""

PLANS = "plans"
"""Folder of a store with a file for each sweep: what it asks for."""

LABELS = f"{PLANS}/labels"
"""File of that folder: what tables call losses, by their text, in JSON."""

CHECKPOINTS = "checkpoints"
"""Folder of a store with a folder for each run that is not done."""

REPLACED = f"{CHECKPOINTS}/replaced.json"
"""File of a store that exists while runs in it are being retrained."""

WEIGHTS = "weights"
"""Folder of a store with a file for each run: its final weights."""

IMAGES = "images"
"""Folder of a store with a folder for each run: the images that it made and that were kept."""

LOGS = "logs"
"""Folder of a store with a folder for each run: the output of its processes."""

CURVES = "tensorboard"
"""Folder of a store with a folder for each run, called by what it trains and its id: files for TensorBoard."""

PROGRESS = "progress"
"""Folder of a store with a file for each sweep that is at work: what its runs are doing."""

PACKED = "packed"
"""Folder of a store with the packed sets that nodes fetch."""

SENT_NETWORKS = "networks"
"""Folder of a store with the pretrained networks that nodes fetch."""

INIT = "init"
"""Folder of a store with the weights with which runs start, each file called by their hash."""

SOURCES = "sources"
"""Folder of a store with the code of the plug-ins of its runs, each file called by the hash of the code."""

TIMES = "times"
"""Folder of a store with what ``sgbench plan --measure`` has measured."""

MEASURED = f"{TIMES}/measured.json"
"""File of that folder."""

DECLARED = "declared"
"""Folder of a store with what sweeps have declared before the first look, each file called by its digest."""

TUNINGS = "tunings"
"""Folder of a store with a file for each search for the settings of losses, called by its name."""

SIGNS = ("runs", PLANS, TUNINGS)
"""Folders one of which is there as soon as a run has ended, or a sweep or a search for settings has begun."""

FOLDERS = (
    *("runs", "scores", "history", "validation", PLANS, CHECKPOINTS, WEIGHTS, IMAGES, LOGS),
    *(CURVES, PROGRESS, PACKED, SENT_NETWORKS, INIT, SOURCES, TIMES, DECLARED, TUNINGS, SCRATCH),
)
"""All folders that a store makes; nothing beside them is ever looked at or deleted."""

RUN_ID = "[0-9a-f]{12}"
"""Pattern of a run's id."""

_CHECKPOINT = re.compile(r"\d{12}\.pt")
"""The name of a file that a run resumes from; others in its folder, such as ``latest.pt``, are not the run's."""

_IMAGE = re.compile(rf"{IMAGES}/({RUN_ID})/({PART})/({PART})\.png")

_INIT = re.compile(rf"{INIT}/([0-9a-f]{{64}})\.pt")

_SOURCE = re.compile(rf"{SOURCES}/([0-9a-f]{{12}})\.json")

_DECLARATION = re.compile(rf"{DECLARED}/([0-9a-f]{{12}})\.json")

_TUNING = re.compile(rf"{TUNINGS}/({PART})\.json")

_PROGRESS = re.compile(rf"{PROGRESS}/[0-9a-f]+\.json")

_BESIDE = re.compile(
    rf"{WEIGHTS}/({RUN_ID})\.pt|{CHECKPOINTS}/({RUN_ID})/(?:\d+\.pt|(?:budget|code)\.json)"
    rf"|{IMAGES}/({RUN_ID})/[^/]+/[^/]+\.png|{LOGS}/({RUN_ID})/.+|{CURVES}/[^/]+ ({RUN_ID})/.+"
)

_WRITTEN = re.compile(
    rf"(runs|scores|history|validation)/[^/]+\.parquet|{PLANS}/[^/]+\.json|{LABELS}|{WEIGHTS}/{RUN_ID}\.pt"
    rf"|{CHECKPOINTS}/{RUN_ID}/(?:\d+\.pt|(?:budget|code)\.json)|{IMAGES}/{RUN_ID}/[^/]+/[^/]+\.png|{REPLACED}"
    rf"|{_PROGRESS.pattern}|{MEASURED}"
    rf"|{PACKED}/[0-9a-f]{{64}}/(manifest\.json|(hr|lr)\.bin\.\d{{5}})|{SENT_NETWORKS}/[^/]+\.\d{{5}}"
    rf"|{_INIT.pattern}|{_SOURCE.pattern}|{_DECLARATION.pattern}"
    rf"|{_TUNING.pattern}"
)
"""Names of the files that `Storage.write` makes in a store."""

_SCRATCHED = re.compile(rf"{re.escape(SCRATCH)}/[0-9a-f]{{8}}(\.stop$|/)")
"""Names in `SCRATCH`: what a sweep or merge has there is called by a number of its own."""


def checkpoints_of(run_id: str) -> str:
    """Return the folder of a run's checkpoints."""
    return f"{CHECKPOINTS}/{run_id}"


def checkpoint_of(run_id: str, step: int) -> str:
    """Return the file of a run's checkpoint."""
    return f"{checkpoints_of(run_id)}/{step:012d}.pt"


def budget_of(run_id: str) -> str:
    """Return the file of a run whose budget of hours was used up; it says how many seconds it had trained for."""
    return f"{checkpoints_of(run_id)}/budget.json"


def code_record_of(run_id: str) -> str:
    """Return the file of a run that is not done and has plug-ins; it says with which code its training began."""
    return f"{checkpoints_of(run_id)}/code.json"


def checkpoint_steps(storage: Storage, run_id: str) -> list[int]:
    """Return the steps done by each checkpoint of a run, in order, without reading one."""
    names = (name.rpartition("/")[2] for name in storage.list(checkpoints_of(run_id), ".pt"))
    return [int(name.removesuffix(".pt")) for name in names if _CHECKPOINT.fullmatch(name)]


def weights_of(run_id: str) -> str:
    """Return the file of a run's final weights."""
    return f"{WEIGHTS}/{run_id}.pt"


def images_of(run_id: str) -> str:
    """Return the folder of a run's kept images."""
    return f"{IMAGES}/{run_id}"


def image_of(run_id: str, dataset: str, image: str) -> str:
    """Return the file of an image that a run made of one of a test set, `sgbench.store.Dataset.versioned`."""
    return f"{images_of(run_id)}/{dataset}/{image}.png"


def logs_of(run_id: str) -> str:
    """Return the folder of a run's logs."""
    return f"{LOGS}/{run_id}"


def curves_of(run_id: str, title: str) -> str:
    """Return the folder of a run's files for TensorBoard, which calls the run by the folder's name."""
    return f"{CURVES}/{title} {run_id}"


def kept_images(storage: Storage, run_id: str | None = None) -> list[tuple[str, str, str]]:
    """Return what `image_of` is given for each image that there is, of all runs or of one."""
    names = storage.sizes(IMAGES if run_id is None else images_of(run_id))
    return [(match[1], match[2], match[3]) for match in map(_IMAGE.fullmatch, names) if match]


def plan_of(name: str) -> str:
    """Return the file of what a sweep asks for."""
    return f"{PLANS}/{name}.json"


def progress_of(fence: str) -> str:
    """Return the file of what the sweep that holds a lock is doing, by the `Storage.fence` or the token of the lock."""
    return f"{PROGRESS}/{fence.rpartition('/')[2]}.json"


def packed_of(digest: str, file: str) -> str:
    """Return a file of a packed set that nodes fetch; the pixels are in pieces, see `piece_of`."""
    return f"{PACKED}/{digest}/{file}"


def network_of(file: str) -> str:
    """Return the file of a pretrained network that nodes fetch, which is in pieces, see `piece_of`."""
    return f"{SENT_NETWORKS}/{file}"


def init_of(sha256: str) -> str:
    """Return the file of the weights with which runs start, by their hash."""
    return f"{INIT}/{sha256}.pt"


def inits(storage: Storage) -> dict[str, str]:
    """Return the file of all weights with which runs start, by their hash."""
    matches = ((name, _INIT.fullmatch(name)) for name in storage.list(INIT, ".pt"))
    return {match[1]: name for name, match in matches if match}


def source_of(digest: str) -> str:
    """Return the file of the code of a plug-in, by its hash."""
    return f"{SOURCES}/{digest}.json"


def sources(storage: Storage) -> dict[str, str]:
    """Return the file of the code of each plug-in, by its hash."""
    matches = ((name, _SOURCE.fullmatch(name)) for name in storage.list(SOURCES, ".json"))
    return {match[1]: name for name, match in matches if match}


def declaration_of(digest: str) -> str:
    """Return the file of what a sweep has declared, by its digest."""
    return f"{DECLARED}/{digest}.json"


def declarations(storage: Storage) -> dict[str, str]:
    """Return the file of all that sweeps have declared, by digest."""
    matches = ((name, _DECLARATION.fullmatch(name)) for name in storage.list(DECLARED, ".json"))
    return {match[1]: name for name, match in matches if match}


def tuning_of(name: str) -> str:
    """Return the file of a search for the settings of losses, by its name."""
    return f"{TUNINGS}/{name}.json"


def tunings(storage: Storage) -> dict[str, str]:
    """Return the file of each search for the settings of losses, by its name."""
    matches = ((name, _TUNING.fullmatch(name)) for name in storage.list(TUNINGS, ".json"))
    return {match[1]: name for name, match in matches if match}


def piece_of(name: str, index: int) -> str:
    """Return a piece of a file that is too large to be written at once."""
    return f"{name}.{index:05d}"


def latest_step(storage: Storage, run_id: str) -> int:
    """Return the steps done by a run's newest checkpoint, 0 if there is none, without reading a checkpoint."""
    return max(checkpoint_steps(storage, run_id), default=0)


def has_weights(storage: Storage, run_id: str) -> bool:
    """Return whether a run's final weights exist."""
    return storage.exists(weights_of(run_id))


def discard(storage: Storage, run_id: str) -> None:
    """Delete all files of a run except its rows, and its weights last."""
    curves = [folder for folder in storage.folders(CURVES) if folder.endswith(f" {run_id}")]
    for folder in (*curves, logs_of(run_id), images_of(run_id), checkpoints_of(run_id)):
        storage.delete_folder(folder)
    storage.delete(weights_of(run_id))


def runs_beside(storage: Storage) -> set[str]:
    """Return the ids of the runs that have files other than rows."""
    names = (name for folder in (WEIGHTS, CHECKPOINTS, IMAGES, LOGS, CURVES) for name in storage.sizes(folder))
    return {match[match.lastindex or 0] for match in map(_BESIDE.fullmatch, names) if match}


def unfinished(storage: Storage) -> dict[str, int]:
    """Return the names and sizes, in bytes, of partial files that killed writers left in a store."""
    folders = (folder for folder in FOLDERS if folder != SCRATCH)
    return {name: size for folder in folders for name, size in storage.sizes(folder).items() if _is_unfinished(name)}


def discard_progress(storage: Storage) -> dict[str, int]:
    """Delete what killed sweeps were doing, and return the names and bytes of the files; one that lives writes anew."""
    left = {name: size for name, size in storage.sizes(PROGRESS).items() if _PROGRESS.fullmatch(name)}
    for name in left:
        storage.delete(name)
    return left


def discard_scratch(storage: Storage, only: str = "") -> int:
    """Delete what sweeps and merges left in `SCRATCH`; the caller holds the lock of the storage.

    Ray may keep its own files in a folder of that name, such as in a home folder; they are left alone.

    Args:
        storage: The storage.
        only: How names begin that are deleted; without it, the folder itself is deleted too if nothing else is there.

    Returns:
        The bytes freed.
    """
    names = storage.sizes(SCRATCH)
    own = {name: size for name, size in names.items() if _SCRATCHED.match(name) and name.startswith(only)}
    if own.keys() == names.keys() and not only:
        storage.delete_folder(SCRATCH)
    else:
        for name in own:
            storage.delete(name)
    return sum(own.values())


def _is_unfinished(name: str) -> bool:
    folder, _, last = name.rpartition("/")
    left = UNFINISHED.fullmatch(last)
    return left is not None and _WRITTEN.fullmatch(f"{folder}/{left[1]}") is not None
