"""Measuring jobs on one node of a cluster, with the resources of a run."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import ray

from sgbench.assets.locator import Locator
from sgbench.cluster.placement import place
from sgbench.cluster.ray_internals import anywhere
from sgbench.cluster.registered import pack, unpack
from sgbench.cluster.sweep import prepare_nodes
from sgbench.core.storage import Storage
from sgbench.runs.code import names_of_jobs
from sgbench.runs.delivery import Moved
from sgbench.runs.execute import Job
from sgbench.runs.measure import measure_job
from sgbench.spec import SweepSpec
from sgbench.store.times import Time


def measure_there(
    jobs: Sequence[Job],
    sweep: SweepSpec,
    storage: Storage,
    *,
    sending: Callable[[], AbstractContextManager[Moved]],
) -> Iterator[list[Time] | str]:
    """Measure jobs in one process on the connected cluster; a `sgbench.runs.measure.Measurer`.

    Args:
        jobs: The jobs.
        sweep: The sweep that they belong to.
        storage: The results store.
        sending: Shows the progress of putting images and networks into the store.
    """
    each = place(sweep).each
    sent = pack(names_of_jobs(jobs), remote=True)
    prepare_nodes(jobs, storage, "", sent, sending)
    resources = {"num_cpus": each["CPU"], "num_gpus": each.get("GPU", 0), "scheduling_strategy": anywhere()}
    measurer: Any = ray.remote(**resources)(_Measurer).remote(sent.code, max(1, sweep.workers))
    for job in jobs:
        try:
            yield ray.get(measurer.measure.remote(job.to_json()))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error


class _Measurer:
    """Runs on the node; one process for all jobs, as for the runs of a sweep."""

    def __init__(self, code: bytes, workers: int) -> None:
        unpack(code)
        self._workers = workers

    def measure(self, job: str) -> list[Time] | str:
        with ThreadPoolExecutor(1) as pool:  # see `sgbench.core.plugins.FAULTS`
            return pool.submit(
                measure_job, Job.from_json(job), workers=self._workers, locator=Locator(download=True)
            ).result()
