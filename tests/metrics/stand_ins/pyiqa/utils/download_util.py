import os

from torch.hub import download_url_to_file, get_dir

DEFAULT_CACHE_DIR = os.path.join(get_dir(), "pyiqa")  # noqa: PTH118


def load_file_from_url(url):
    cached = os.path.join(DEFAULT_CACHE_DIR, os.path.basename(url))  # noqa: PTH118, PTH119
    if not os.path.exists(cached):  # noqa: PTH110
        download_url_to_file(url, cached)
    return cached
