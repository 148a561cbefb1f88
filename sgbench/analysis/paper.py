"""The numbers printed in the paper, in the terms of a store."""

import functools
from importlib import resources

import pyarrow as pa
import pyarrow.csv

PAPER = pa.schema(
    [
        pa.field("table", pa.int32(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),  # the paper's LPIPS is taken for lpips_alex
        pa.field("backbone", pa.string(), nullable=False),
        pa.field("loss", pa.string(), nullable=False),
        pa.field("seed", pa.int64()),  # trial k of Table 2 is seed k - 1; null where the paper states none
        pa.field("value", pa.float64(), nullable=False),
    ]
)
"""One row per printed number; names are spelled as in ``runs`` and ``scores``."""


@functools.cache
def paper() -> pa.Table:
    """Return Tables 1, 2, 3 and 5 of Lin, Zhang and Yang (2023) as a table of the schema `PAPER`."""
    with resources.files("sgbench.analysis").joinpath("paper.csv").open("rb") as file:
        types = pyarrow.csv.ConvertOptions(column_types=PAPER)
        return pyarrow.csv.read_csv(file, convert_options=types).cast(PAPER)
