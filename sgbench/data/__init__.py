"""Images: finding, reading, degrading, packing once, and drawing training patches.

From a name such as ``DIV2K`` to batches: `fetch` downloads the set, `resolve` finds its files, `prepare` packs their
pixels, and a `PatchSampler` draws from them.
"""

from sgbench.data.catalog import CATALOG, DEMO, DEMO_IMAGES, Archive, DataSet, Part, Role, sets_folder
from sgbench.data.fetch import Fetched, FetchProgress, download_size, fetch, fetch_missing, hosts
from sgbench.data.images import (
    Pixels,
    crop_to_multiple,
    decode_image,
    encode_png,
    image_size,
    is_image_name,
    list_images,
    read_image,
    write_png,
)
from sgbench.data.inventory import Packing, PartStatus, SetStatus, Unused, discard, inventory, list_packings, unused
from sgbench.data.pairing import Pairing, pair_by_name
from sgbench.data.patches import PatchSampler, windows
from sgbench.data.prepare import (
    MANIFEST,
    PIXEL_FILES,
    PackedImage,
    PackedImages,
    PackProgress,
    default_cache,
    pack_set,
    prepare,
    shared_images,
)
from sgbench.data.references import (
    Place,
    Source,
    known_sets,
    missing_sets,
    places_of,
    refuse_overlap,
    resolve,
    uses_shipped_lr,
)

__all__ = [
    "CATALOG",
    "DEMO",
    "DEMO_IMAGES",
    "MANIFEST",
    "PIXEL_FILES",
    "Archive",
    "DataSet",
    "FetchProgress",
    "Fetched",
    "PackProgress",
    "PackedImage",
    "PackedImages",
    "Packing",
    "Pairing",
    "Part",
    "PartStatus",
    "PatchSampler",
    "Pixels",
    "Place",
    "Role",
    "SetStatus",
    "Source",
    "Unused",
    "crop_to_multiple",
    "decode_image",
    "default_cache",
    "discard",
    "download_size",
    "encode_png",
    "fetch",
    "fetch_missing",
    "hosts",
    "image_size",
    "inventory",
    "is_image_name",
    "known_sets",
    "list_images",
    "list_packings",
    "missing_sets",
    "pack_set",
    "pair_by_name",
    "places_of",
    "prepare",
    "read_image",
    "refuse_overlap",
    "resolve",
    "sets_folder",
    "shared_images",
    "unused",
    "uses_shipped_lr",
    "windows",
    "write_png",
]
