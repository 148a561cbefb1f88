"""Images: finding, reading, degrading, packing once, and drawing training patches.

From a name such as ``DIV2K`` to batches: `fetch` downloads the set, `resolve` finds its files, `prepare` packs their
pixels, and a `PatchSampler` draws from them.
"""

from sgbench.data.catalog import CATALOG, DEMO_IMAGES, Archive, DataSet, Part, Role, sets_folder
from sgbench.data.fetch import Fetched, FetchProgress, fetch
from sgbench.data.images import (
    Pixels,
    crop_to_multiple,
    decode_image,
    encode_png,
    image_size,
    list_images,
    read_image,
    write_png,
)
from sgbench.data.inventory import Packing, PartStatus, SetStatus, Unused, discard, inventory, list_packings, unused
from sgbench.data.pairing import pair_by_name
from sgbench.data.patches import PatchSampler, windows
from sgbench.data.prepare import (
    PACKED_FILES,
    PackedImage,
    PackedImages,
    PackProgress,
    default_cache,
    pack_set,
    prepare,
    shared_images,
)
from sgbench.data.references import Source, refuse_overlap, resolve
from sgbench.data.resize import SCALES, downscale, upscale

__all__ = [
    "CATALOG",
    "DEMO_IMAGES",
    "PACKED_FILES",
    "SCALES",
    "Archive",
    "DataSet",
    "FetchProgress",
    "Fetched",
    "PackProgress",
    "PackedImage",
    "PackedImages",
    "Packing",
    "Part",
    "PartStatus",
    "PatchSampler",
    "Pixels",
    "Role",
    "SetStatus",
    "Source",
    "Unused",
    "crop_to_multiple",
    "decode_image",
    "default_cache",
    "discard",
    "downscale",
    "encode_png",
    "fetch",
    "image_size",
    "inventory",
    "list_images",
    "list_packings",
    "pack_set",
    "pair_by_name",
    "prepare",
    "read_image",
    "refuse_overlap",
    "resolve",
    "sets_folder",
    "shared_images",
    "unused",
    "upscale",
    "windows",
    "write_png",
]
