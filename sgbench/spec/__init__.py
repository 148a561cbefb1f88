"""What is to be run: specifications and their identity, the language of losses, the presets. No torch."""

from sgbench.spec.expression import Expression
from sgbench.spec.models import (
    SPEC_VERSION,
    Degradation,
    Grid,
    Optimizer,
    Recipe,
    RunSpec,
    Schedule,
    SweepSpec,
    TrainingData,
    Window,
    build,
    canonical_json,
    check_tests,
    override,
    read_setting,
    set_name,
)
from sgbench.spec.resolve import backbone_sizes, check_backbone, check_loss, check_metrics, split_backbone

__all__ = [
    "SPEC_VERSION",
    "Degradation",
    "Expression",
    "Grid",
    "Optimizer",
    "Recipe",
    "RunSpec",
    "Schedule",
    "SweepSpec",
    "TrainingData",
    "Window",
    "backbone_sizes",
    "build",
    "canonical_json",
    "check_backbone",
    "check_loss",
    "check_metrics",
    "check_tests",
    "override",
    "read_setting",
    "set_name",
    "split_backbone",
]
