"""Weights on storage: a run's checkpoints while it trains, its final weights when it is done, those it starts with."""

import io
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sgbench.assets import tensors
from sgbench.backbones import unwrap
from sgbench.core.errors import InputError, MissingDataError, described, machine_fault
from sgbench.core.location import Location
from sgbench.core.storage import Storage
from sgbench.spec import RunSpec
from sgbench.spec.stored import read_spec
from sgbench.store.layout import checkpoint_of, checkpoint_steps, checkpoints_of, init_of, weights_of

KEEP = 2
"""Checkpoints kept per run: the newest and, in case that cannot be read, the one before."""


class Checkpoints:
    """The checkpoints and final weights of one run below a results store.

    Runs resume only from these; nothing that Ray keeps is read back.

    Args:
        storage: The results store.
        run_id: The run.
    """

    def __init__(self, storage: Storage, run_id: str) -> None:
        self.storage = storage
        self.run_id = run_id

    def load(self, spec: RunSpec | None = None) -> dict[str, Any] | None:
        """Return the newest checkpoint that is whole, or None.

        Args:
            spec: The run that resumes; a checkpoint of another run is passed over, like a damaged one.

        Raises:
            OSError: If the storage does not give a checkpoint that it has: it may do so later.

        Warns:
            UserWarning: For each checkpoint that is passed over, with the reason.
        """
        for step in reversed(checkpoint_steps(self.storage, self.run_id)):
            name = checkpoint_of(self.run_id, step)
            try:
                return _state(self.storage.read(name), step, spec)
            except FileNotFoundError:  # deleted since it was listed
                continue
            except Exception as error:  # torch.load raises whatever damaged bytes provoke
                if machine_fault(error):
                    raise
                why = described(error) if isinstance(error, InputError) else "it is damaged"
                warnings.warn(f"checkpoint '{self.storage.address(name)}' is not used: {why}", stacklevel=2)
        return None

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint and delete those before it, except for the newest `KEEP` of both.

        Raises:
            OSError: If it cannot be written; those before it are kept.
        """
        self.storage.write(checkpoint_of(self.run_id, step), _dump(state))
        earlier = [each for each in checkpoint_steps(self.storage, self.run_id) if each <= step]
        for each in earlier[:-KEEP]:
            self.storage.delete(checkpoint_of(self.run_id, each))

    def save_weights(
        self, weights: dict[str, Tensor], spec: dict[str, Any], averaged: dict[str, Tensor] | None = None
    ) -> None:
        """Write the final weights and, if there is one, their average, with the specification of the run."""
        content = {"format": "sgbench/1", "spec": spec, "params": weights}
        self.storage.write(self._weights, _dump(content if averaged is None else {**content, "params_ema": averaged}))

    def load_weights(self) -> dict[str, Tensor]:
        """Return the final weights that are scored: the average if there is one.

        Raises:
            FileNotFoundError: If there are none.
            InputError: If they are damaged, or no weights.
        """
        return unwrap(_content_of(self._weights, self.storage.read(self._weights)), source=self._weights)

    def clear(self) -> None:
        """Delete the checkpoints; final weights stay."""
        self.storage.delete_folder(checkpoints_of(self.run_id))

    @property
    def _weights(self) -> str:
        return weights_of(self.run_id)


def read_weights_file(path: str, storage: Storage | None = None) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read the weights of a network from a file.

    Args:
        path: Final weights or a checkpoint of sgbench, or a public checkpoint: a state dict, plain or wrapped as
            `sgbench.backbones.unwrap` knows it, in torch's format or, if named so, as ``*.safetensors``.
        storage: The folder in which ``path`` is a name; without it, ``path`` is a path or URI.

    Returns:
        Tensors by parameter name, on the CPU, and the run's specification if the file has one.

    Raises:
        MissingDataError: If there is no such file.
        InputError: If it cannot be read or holds no weights. Code in a pickle is never run.
    """
    weights, content = _weights_and_more(path, storage)
    return weights, content.get("spec")


def write_init(storage: Storage, weights: Mapping[str, Tensor], source: str) -> str:
    """Write weights with which runs start, under their hash, and return the name of the file.

    Args:
        storage: The results store.
        weights: By a network's own names.
        source: What the checkpoint is called that they are from.
    """
    name = init_of(tensors.fingerprint(weights))
    storage.write(name, _dump({"format": "sgbench/1", "source": source, "params": dict(weights)}))
    return name


def read_init(storage: Storage, sha256: str) -> tuple[dict[str, Tensor], object]:
    """Return weights with which runs start, by a network's own names, and what the checkpoint is called.

    Raises:
        MissingDataError: If the storage does not have them.
        InputError: If they are damaged, or others.
    """
    name = init_of(sha256)
    weights, content = _weights_and_more(name, storage)
    if tensors.fingerprint(weights) != sha256:
        raise InputError(f"'{storage.address(name)}' does not hold the weights of that hash; delete it.")
    return weights, content.get("source")


def _weights_and_more(path: str, storage: Storage | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights in a file and all that it holds; see `read_weights_file`."""
    try:
        read = storage.read(path) if storage else _read(path)
    except FileNotFoundError as error:
        raise MissingDataError(f"checkpoint '{path}' does not exist.") from error
    except (OSError, InputError) as error:
        raise InputError(f"checkpoint '{path}' cannot be read: {str(error).rstrip('.')}.") from error
    content = _content_of(path, read)
    return unwrap(content, source=path), content


def _content_of(path: str, read: bytes) -> Any:
    try:
        return safetensors.torch.load(read) if path.endswith(".safetensors") else _load(read)
    except Exception as error:  # torch.load raises whatever a malformed pickle or archive provokes
        raise InputError(
            f"checkpoint '{path}' cannot be read: it is damaged, or holds more than tensors and plain values."
        ) from error


def _read(path: str) -> bytes:
    location = Location.of(path)
    folder, _, name = location.path.rpartition("/")
    return Storage(str(replace(location, path=folder or "/"))).read(name)


def _state(content: bytes, step: int, spec: RunSpec | None) -> dict[str, Any]:
    """Return the state in a checkpoint, which is that of a step of a run."""
    state: dict[str, Any] = _load(content)
    if not isinstance(state, dict) or state.get("step") != step:
        raise InputError(f"it does not hold the state of step {step}.")
    if spec and (other := read_spec(state.get("spec"), "it").run_id) != spec.run_id:
        raise InputError(f"it is of run {other}.")
    return state


def _dump(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _load(content: bytes) -> Any:
    return tensors.load(io.BytesIO(content))
