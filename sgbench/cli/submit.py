"""``sgbench submit``: a sweep as a job of a running cluster."""

import importlib.metadata
import re
from typing import TYPE_CHECKING

import typer

from sgbench.cli import options

if TYPE_CHECKING:
    from sgbench.core.modules import Code
    from sgbench.spec import SweepSpec

EXAMPLES = (
    "sgbench submit paper --results s3://bucket/results",
    "sgbench submit mine.yaml --results /shared/results --set recipe.steps=5000 --address http://127.0.0.1:8265",
)


def submit(
    asked: options.Asked,
    address: options.Dashboard = None,
    retry: options.Retry = False,
    retrain: options.Retrain = False,
    rerun: options.Rerun = False,
) -> None:
    """Submit a sweep to a running cluster, print the id of the job, and return at once.

    The sweep is checked here and sent in full, flags included, and so are the modules of plug-ins that no package
    installs. Every node of the cluster must have sgbench and the images, and must reach the store in --results.
    """
    import yaml

    from sgbench.cluster.jobs import Jobs
    from sgbench.runs.code import code_of, names_of_sweep

    results = _seen_by_all(asked.results)
    _check_folders(asked.sweep)
    sweep = yaml.safe_dump(asked.sweep.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    flags = [flag for flag, given in {"--retry": retry, "--retrain": retrain, "--rerun": rerun}.items() if given]
    code = code_of(names_of_sweep(asked.sweep))
    _say(code)
    job = Jobs(address).submit(asked.name, sweep, results, flags, flags=asked.flags, modules=code.modules)
    typer.echo(job)
    typer.echo(f"'sgbench logs {job} --follow' shows its output, 'sgbench stop {job}' stops it.", err=True)


def _say(code: "Code") -> None:
    """Say which modules are sent, and which packages the cluster must have."""
    for module in code.modules:
        typer.echo(f"sent along: {module.file} ({len(module.content):,} bytes)", err=True)
    for package in code.packages:
        needed = f"{package} {importlib.metadata.version(package)}"
        typer.echo(f"every node must have {needed}, which the job checks before its runs start", err=True)


def _seen_by_all(results: str | None) -> str:
    """Return the store of a job.

    Raises:
        InputError: If none is given, it is a folder that only this machine has, or a URI with credentials, which Ray
            would keep with the job.
    """
    from sgbench.core.errors import InputError
    from sgbench.core.storage import absolute

    if results is None or not re.match("/|[a-z0-9]+://", results, re.IGNORECASE):
        given = "not given" if results is None else f"'{results}'"
        raise InputError(
            f"--results is {given}; a job needs a store that all nodes can reach, such as s3://bucket/results or "
            "/shared/results."
        )
    return absolute(results)


def _check_folders(sweep: "SweepSpec") -> None:
    """Refuse images that are on this machine and not on the cluster.

    Raises:
        InputError: If the folder of a data set is not an absolute path.
    """
    from sgbench.core.errors import InputError

    for reference in (sweep.train, *sweep.tests):
        if re.search("^[^=]*=(?!/)|,lr=(?!/)", reference):
            raise InputError(
                f"data set '{reference}' has a relative path; a job needs the absolute path of a folder that all nodes "
                "can read."
            )
