"""Ray: Tune schedules the runs of a sweep, each run is a Ray Train job. The only room that imports Ray."""

from sgbench.cluster.session import connect
from sgbench.cluster.sweep import Summary, run_sweep

__all__ = ["Summary", "connect", "run_sweep"]
