"""What belongs to a run beside its rows, and where in a store it lies."""

from sgbench.core.storage import Storage

SCRATCH = ".ray"
"""Folder of a store for what a sweep needs only while it runs; whoever holds the store's lock may delete it."""

LOGS = "logs"
"""Folder of a store with a folder for each run: what its processes print, and what TensorBoard shows."""


def checkpoints_of(run_id: str) -> str:
    """Return the folder of a run's checkpoints."""
    return f"checkpoints/{run_id}"


def weights_of(run_id: str) -> str:
    """Return the file of a run's final weights."""
    return f"weights/{run_id}.pt"


def images_of(run_id: str) -> str:
    """Return the folder of the images that a run made and that were kept."""
    return f"images/{run_id}"


def logs_of(run_id: str) -> str:
    """Return the folder of a run's logs."""
    return f"{LOGS}/{run_id}"


def discard(storage: Storage, run_id: str) -> None:
    """Delete all that lies beside the rows of a run."""
    storage.delete(weights_of(run_id))
    for folder in (checkpoints_of(run_id), images_of(run_id), logs_of(run_id)):
        storage.delete_folder(folder)
