"""How the processes of a worker group find each other when all are on this machine: in a file, not at a port.

torch's own server for that listens on all interfaces and asks nobody for a token. Across machines, there is no other
way.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend

from sgbench.cluster.ray_internals import session_folder


class _FileBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        file = Path(session_folder()) / f"group-{secrets.token_hex(8)}"  # a new one, as a group may be started again
        worker_group.execute(_set_torch_distributed_env_vars)
        each = {
            "backend": "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) else "gloo",
            "world_size": len(worker_group),
            "init_method": file.as_uri(),
            "timeout_s": backend_config.timeout_s,
        }
        ray.get(
            [
                worker_group.execute_single_async(rank, _setup_torch_process_group, world_rank=rank, **each)
                for rank in range(len(worker_group))
            ]
        )


@dataclass
class InFile(TorchConfig):
    """A process group of torch whose processes are all on this machine."""

    @property
    def backend_cls(self) -> type[_FileBackend]:
        """What sets the group up."""
        return _FileBackend
