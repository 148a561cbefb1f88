"""Images of a test set, and those that ``sgbench eval --save-images`` has kept for it in a store."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from sgbench.core.errors import InputError
from sgbench.core.storage import Storage
from sgbench.data import PackedImages, Pixels, decode_image
from sgbench.store import Dataset
from sgbench.store.layout import has_weights, image_of


def given(images: PackedImages) -> str:
    """Return what the images of a set are: ``HR``, or ``LR`` if there are no others."""
    return "HR" if images.has_hr else "LR"


def whole(images: PackedImages, index: int) -> Pixels:
    """Return an image of a set in the size of HR: HR or, without it, LR with its pixels repeated."""
    if images.has_hr:
        return images.hr(index)
    return images.lr(index).repeat(images.scale, 0).repeat(images.scale, 1)


@dataclass(frozen=True)
class SavedImages:
    """A test set, and the images that a store keeps for it.

    Attributes:
        storage: The store's.
        images: The test set.
        reference: How the person wrote the test set, for the command that a message names.
    """

    storage: Storage
    images: PackedImages
    reference: str

    def name(self, index: int) -> str:
        """Return the name of an image of the set."""
        return self.images.images[index].name

    def index(self, name: str) -> int:
        """Return the index of an image in the set.

        Raises:
            InputError: If it is not.
        """
        names = [image.name for image in self.images.images]
        if name not in names:
            raise InputError(f"--image is '{name}'; {self.images.name} has {', '.join(names)}.")
        return names.index(name)

    def check(self, run_ids: Iterable[str], indices: Iterable[int]) -> None:
        """Check that images of some runs were kept.

        Raises:
            InputError: If not, with the command that keeps them, or without where the store has no weights for it.
        """
        indices = list(indices)
        lacking = [run for run in run_ids if not all(self.storage.exists(self._file(run, at)) for at in indices)]
        runs = "1 run" if len(lacking) == 1 else f"{len(lacking)} runs"
        if lost := [run for run in lacking if not has_weights(self.storage, run)]:
            raise InputError(
                f"images of {runs} were not kept, and '{self.storage}' has no weights from which to make those of "
                f"{', '.join(lost)}."
            )
        if lacking:
            command = ["sgbench", "eval", *lacking, "--results", str(self.storage), "--test", self.reference]
            command += ["--metric", "psnr_y", "--save-images"]
            raise InputError(f"images of {runs} were not kept; this keeps them: {shlex.join(command)}")

    def whole(self, index: int) -> Pixels:
        """Return `whole` of an image of the set."""
        return whole(self.images, index)

    def sr(self, run_id: str, index: int) -> Pixels:
        """Return a run's version of an image.

        Raises:
            InputError: If the file cannot be read or has another size than the image.
        """
        path = self.storage.address(self._file(run_id, index))
        pixels = decode_image(self.storage.read(self._file(run_id, index)), path)
        height, width, _ = self.whole(index).shape
        if pixels.shape[:2] != (height, width):
            raise InputError(f"'{path}' is not {width}×{height} pixels; it was made of another {self.images.name}.")
        return pixels

    def _file(self, run_id: str, index: int) -> str:
        """Return where `sgbench.scoring.subjects` keeps an image."""
        dataset = Dataset(self.images.name, self.images.sha256).versioned
        return image_of(run_id, dataset, self.name(index))
