"""Images: finding, reading, degrading, packing once, and drawing training patches.

From a reference such as ``DIV2K=/data/DIV2K`` to batches: `resolve` finds the files, `prepare` packs their pixels, and
a `PatchSampler` draws from them.
"""

from sgbench.data.catalog import CATALOG, DEMO_IMAGES, DataSet, Part, Role, Source, refuse_overlap, resolve
from sgbench.data.images import Pixels, crop_to_multiple, image_size, list_images, read_image, write_png
from sgbench.data.patches import PatchSampler, windows
from sgbench.data.prepare import PackedImage, PackedImages, default_cache, prepare, shared_images
from sgbench.data.resize import SCALES, downscale, upscale

__all__ = [
    "CATALOG",
    "DEMO_IMAGES",
    "SCALES",
    "DataSet",
    "PackedImage",
    "PackedImages",
    "Part",
    "PatchSampler",
    "Pixels",
    "Role",
    "Source",
    "crop_to_multiple",
    "default_cache",
    "downscale",
    "image_size",
    "list_images",
    "prepare",
    "read_image",
    "refuse_overlap",
    "resolve",
    "shared_images",
    "upscale",
    "windows",
    "write_png",
]
