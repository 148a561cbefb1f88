"""Ray: Tune schedules the runs of a sweep, each run is a Ray Train job. The only room that imports Ray."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgbench.cluster.session import connect as connect
    from sgbench.cluster.session import measuring as measuring
    from sgbench.cluster.session import on_ray as on_ray
    from sgbench.cluster.sweep import run_sweep as run_sweep
    from sgbench.cluster.tune import ask_optuna as ask_optuna

_HOMES = {
    "ask_optuna": "tune",
    "connect": "session",
    "measuring": "session",
    "on_ray": "session",
    "run_sweep": "sweep",
}

__all__ = ["ask_optuna", "connect", "measuring", "on_ray", "run_sweep"]


def __getattr__(name: str) -> Any:
    """Load a name on first use: asking for a job needs neither Tune nor torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sgbench.cluster' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"sgbench.cluster.{_HOMES[name]}"), name)
