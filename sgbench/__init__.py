"""sgbench: does my loss really beat L1, on every backbone, beyond seed noise?"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgbench.analysis import Results as Results
    from sgbench.analysis import load_results as load_results
    from sgbench.api import evaluate as evaluate
    from sgbench.api import plan as plan
    from sgbench.api import sweep as sweep
    from sgbench.backbones import register_backbone as register_backbone
    from sgbench.losses import register_loss as register_loss
    from sgbench.losses.discriminators import register_discriminator as register_discriminator
    from sgbench.metrics import metric as metric
    from sgbench.metrics import register_metric as register_metric
    from sgbench.report.summaries import agreement as agreement
    from sgbench.report.summaries import compare as compare
    from sgbench.report.summaries import table as table
    from sgbench.trackers import register_tracker as register_tracker
    from sgbench.training.optimizers import register_optimizer as register_optimizer

__version__ = "0.1.0"

_PUBLIC = {
    "Results": "sgbench.analysis",
    "agreement": "sgbench.report.summaries",
    "compare": "sgbench.report.summaries",
    "evaluate": "sgbench.api",
    "load_results": "sgbench.analysis",
    "metric": "sgbench.metrics",
    "plan": "sgbench.api",
    "register_backbone": "sgbench.backbones",
    "register_discriminator": "sgbench.losses.discriminators",
    "register_loss": "sgbench.losses",
    "register_metric": "sgbench.metrics",
    "register_optimizer": "sgbench.training.optimizers",
    "register_tracker": "sgbench.trackers",
    "sweep": "sgbench.api",
    "table": "sgbench.report.summaries",
}

__all__ = [
    "Results",
    "__version__",
    "agreement",
    "compare",
    "evaluate",
    "load_results",
    "metric",
    "plan",
    "register_backbone",
    "register_discriminator",
    "register_loss",
    "register_metric",
    "register_optimizer",
    "register_tracker",
    "sweep",
    "table",
]


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that ``import sgbench`` loads neither torch nor pyarrow."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sgbench' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
