"""Scores of a network on validation sets while it is being trained."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from sgbench.assets.locator import Locator
from sgbench.backbones import build_backbone
from sgbench.data import PackedImages, Pixels
from sgbench.scoring.evaluation import score
from sgbench.scoring.upscaling import Upscaler, from_network
from sgbench.spec import RunSpec, Validation
from sgbench.store.rows import ValidationRow


class Validator:
    """Scores a run's weights on validation sets, by the path by which final weights are scored.

    It has a network of its own, so that the one that is trained stays as it is: its mode, its hooks, its compiled code.

    Args:
        spec: The run.
        asked: When to validate, and by which metrics.
        sets: The validation sets; none if another process validates.
        locator: Finds the networks that metrics need.
        device: Where the run trains.
    """

    def __init__(
        self,
        spec: RunSpec,
        asked: Validation,
        sets: Iterable[PackedImages],
        locator: Locator,
        device: torch.device,
    ) -> None:
        self.every = asked.every
        self._spec, self._metrics, self._sets = spec, asked.metrics, list(sets)
        self._locator, self._device = locator, device

    def __call__(
        self, weights: Mapping[str, Tensor], step: int, on_image: Callable[[], object] = lambda: None
    ) -> list[ValidationRow]:
        """Score weights, under the torch settings of the caller; no random stream of torch is changed.

        Args:
            weights: The weights, by parameter name.
            step: The steps that made them.
            on_image: Called before each image.

        Returns:
            The score of each set by each metric; one that cannot be computed has no value, and the reason.

        Raises:
            Exception: A fault of storage or machine.
        """

        def upscaler(images: PackedImages, index: int) -> Pixels:
            on_image()
            return self._upscaler(images, index)

        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
            self._network.load_state_dict(weights)
            return [row for images in self._sets for row in self._rows(upscaler, images, step)]

    @functools.cached_property
    def _network(self) -> nn.Module:
        return build_backbone(self._spec.backbone, self._spec.recipe.scale)

    @functools.cached_property
    def _upscaler(self) -> Upscaler:
        return from_network(self._network, self._spec.recipe, self._device)

    def _rows(self, upscaler: Upscaler, images: PackedImages, step: int) -> Iterator[ValidationRow]:
        rows = score(
            upscaler,
            images,
            self._metrics,
            run_id=str(self._spec.run_id),
            locator=self._locator,
            device=self._device,
        )
        for row in rows:
            if row["image"] is None:
                yield {
                    "run_id": row["run_id"],
                    "step": step,
                    "dataset": row["dataset"],
                    "dataset_sha256": row["dataset_sha256"],
                    "metric": row["metric"],
                    "metric_version": row["metric_version"],
                    "protocol": row["protocol"],
                    "n_images": row["n_images"],
                    "value": row["value"],
                    "status": str(row["status"]),
                    "reason": row["reason"],
                    "seconds": row["seconds"],
                    "upscaling_seconds": row["upscaling_seconds"],
                }
