"""The Parquet files of a table: small ones that runs write, and a large one into which they are compacted.

These rules keep every reader correct at every moment, whichever process dies when:

- A *stem*, the name of a small file without its suffix, identifies rows: ``<run_id>`` in ``runs``, ``history`` and
  ``validation``, ``<run_id>-<dataset>@<8 digits of its hash>-<metric>`` in ``scores``. A small file, even if empty,
  holds all rows of its stem. Rows of all other stems are in a compacted file, ``compacted-000001.parquet``.
- A compacted file is never changed. Only the one with the highest number counts. It is complete before the files that
  it replaces are deleted.
- Rows of a compacted file are deleted by writing empty small files for their stems.
- A reader lists the folder, reads all that counts and lists it again. Until both listings have the same compacted file,
  and every file was there when it was read, it goes on with the second one: a listing made while files change may show
  neither a file nor its replacement, or a file that has just been deleted. Only a compaction or a deletion makes it
  go on, so a reader ends however many files are written meanwhile.
- A name that is neither a stem nor that of a compacted file, such as that of a copy that a sync tool has made, does not
  count.

Why that is enough: small files are deleted only if nothing else has their stem, or after a compacted file with their
rows is complete and the one before it is deleted. So while the compacted file of the first listing is there, so are the
small files that count with it; and if it is no longer the newest one, the second listing, which began after everything
was read, shows that. It is read with the small files of both listings, as the first may lack one that was replaced
while the folder was listed. (Two compactions, of which one falls into each listing, could deceive a reader of a table
that had never been compacted before.)

So no row is counted twice here. A program that reads ``scores/*.parquet`` on its own may see a row together with its
replacement, from when a compacted run is repeated until the next compaction.
"""

import concurrent.futures
import contextlib
import errno
import io
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sgbench.core.errors import InputError, explained
from sgbench.core.storage import PART, Storage
from sgbench.store.layout import RUN_ID
from sgbench.store.rows import Row
from sgbench.store.schema import SCHEMA_VERSION, TABLES, TEXT, check_names, check_rows, check_values, of_today, to_table

ROWS_A_GROUP = 1 << 18
"""Rows per row group of a compacted file, and the most that a compaction holds in memory as plain text."""

_OF_SMALL_FILES = "snappy"
"""A small file is read twice as fast as with zstd, which sets itself up anew for each column, and is no larger."""

FILES_AT_ONCE = 2000
"""Small files that a compaction reads at once."""

_THREADS = 8
"""Small files that are read side by side, as each takes a request in an object store."""

_OF_A_TASK = 64
"""Files that a thread reads before it asks for more; to ask takes a fifth of the time that reading one does."""

_COMPACTED = re.compile(r"compacted-(\d{6})")

_STEM = {
    "runs": re.compile(RUN_ID),
    "history": re.compile(RUN_ID),
    "validation": re.compile(RUN_ID),
    "scores": re.compile(rf"{RUN_ID}-{PART}@[0-9a-f]{{8}}-[\w.]+"),
}
"""Names that can only be stems, as sync tools add a space or a hyphen to the name of a copy."""

_OF_ODD_METRIC = re.compile(rf"{RUN_ID}-{PART}@[0-9a-f]{{8}}-[^\s/\\]+")
"""Names in ``scores`` that may be stems too, of a plug-in's metric such as ``my-metric``, or copies."""

_STEM_COLUMNS = {
    "runs": ("run_id",),
    "history": ("run_id",),
    "validation": ("run_id",),
    "scores": ("run_id", "dataset", "dataset_sha256", "metric"),
}


@dataclass(frozen=True)
class Listing:
    """The files of a table, by stem."""

    small: tuple[str, ...]
    compacted: tuple[str, ...]
    """Oldest first. Normally there is one; others were left by a killed compaction."""
    strays: tuple[str, ...] = ()
    """Names that do not count, as they are no stems of the table."""

    @property
    def newest(self) -> str | None:
        """The compacted file that counts."""
        return self.compacted[-1] if self.compacted else None

    @property
    def counting(self) -> list[str]:
        """All files to read."""
        return [*self.small, *self.compacted[-1:]]

    def next(self) -> str:
        """Return the name of the next compacted file."""
        found = _COMPACTED.fullmatch(self.newest or "")
        return f"compacted-{int(found[1]) + 1 if found else 1:06d}"


class TableFiles:
    """One table of a store.

    Args:
        storage: The store.
        table: A name in `TABLES`.
    """

    def __init__(self, storage: Storage, table: str) -> None:
        self.storage = storage
        self.table = table
        self.schema = TABLES[table]
        self._odd: dict[str, bool] = {}

    def name(self, stem: str) -> str:
        """Return a file's name in the storage."""
        return f"{self.table}/{stem}.parquet"

    def list(self) -> Listing:
        """Return the files of the table."""
        names = self.storage.list(self.table, ".parquet")
        found = [name.removeprefix(f"{self.table}/").removesuffix(".parquet") for name in names]
        small = tuple(filter(self._is_stem, found))
        compacted = tuple(filter(_COMPACTED.fullmatch, found))
        strays = tuple(sorted({*found} - {*small, *compacted}))
        return Listing(small, compacted, strays)

    def _is_stem(self, name: str) -> bool:
        """Return whether a small file counts; if its name cannot tell, whether its rows have that stem."""
        if _STEM[self.table].fullmatch(name):
            return True
        if self.table != "scores" or not _OF_ODD_METRIC.fullmatch(name):
            return False
        if name not in self._odd:
            try:
                rows = self._parts([name])
            except InputError:
                return True  # whoever reads it reports that it is damaged
            self._odd |= {stem: self.stems(part).unique().to_pylist() in ([], [stem]) for stem, part in rows.items()}
        return self._odd.get(name, True)

    def write(self, stem: str, rows: Sequence[Row]) -> None:
        """Write the small file of a stem."""
        buffer = io.BytesIO()
        pq.write_table(to_table(self.table, rows), buffer, compression=_OF_SMALL_FILES, write_page_checksum=True)
        self.storage.write(self.name(stem), buffer.getvalue())

    def forget(self, run_id: str) -> None:
        """Delete the rows of a run."""
        listing = self.list()
        compacted = self._stems_of(run_id, listing.newest) if listing.newest else set()
        for stem in sorted(compacted):
            self.write(stem, [])
        for stem in listing.small:
            if stem not in compacted and (stem == run_id or stem.startswith(f"{run_id}-")):
                self.storage.delete(self.name(stem))

    def read(self, *, totals: bool = False) -> pa.Table:
        """Return the rows that count, in any order, with text as dictionaries.

        Args:
            totals: For scores, read only those of whole sets.

        Raises:
            InputError: If a file is not a results file of this version.
        """
        parts: dict[str, pa.Table] = {}

        def read(stems: Sequence[str]) -> bool:
            """Read files that were not read yet, and return whether all were there."""
            parts.update(self._parts([stem for stem in stems if stem not in parts], totals=totals))
            return parts.keys() >= set(stems)

        listing = self.list()
        while True:
            whole = read(listing.counting)
            before, listing = listing, self.list()
            if whole and listing.newest == before.newest and read(listing.small):
                break
        return self.joined(Listing(tuple(sorted({*before.small, *listing.small})), before.compacted), parts)

    def joined(self, listing: Listing, parts: Mapping[str, pa.Table]) -> pa.Table:
        """Return the rows that count of some files, as `read` does of all.

        Raises:
            InputError: If a row is none that a reader could use, naming its file.
        """
        small = {stem: parts[stem] for stem in listing.small if stem in parts}
        rows = _encoded(pa.concat_tables([self.schema.empty_table(), *small.values()]).combine_chunks())
        self._check(rows, small)
        newest = listing.newest
        if newest is None or newest not in parts:
            return rows
        compacted = self._unshadowed(_encoded(parts[newest]), sorted(listing.small))  # a column added is plain
        self._check(compacted, {newest: parts[newest]}, large=True)
        return pa.concat_tables([compacted, rows])

    def part(self, stem: str) -> pa.Table | None:
        """Return the rows of one file, dictionary-encoded if it is compacted; None if there is no such file.

        Raises:
            InputError: If it is not a results file of this version, or a row is none that a reader could use.
        """
        part = self._part(stem)
        if part is not None:
            self._check(part, {stem: part})
        return part

    def _part(self, stem: str, *, totals: bool = False) -> pa.Table | None:
        """Return the rows of one file, which `_check` has not seen yet."""
        try:
            with self._open(stem) as file:
                groups = [group for group in range(file.num_row_groups) if not totals or _has_totals(file, group)]
                alone = not _COMPACTED.fullmatch(stem)  # small files are read side by side, each by one thread
                part = self._of_today(file.read_row_groups(groups, use_threads=not alone), stem)
                return whole_sets(part) if totals else part
        except FileNotFoundError:
            return None

    def compact(self, new: pa.Table | None = None) -> int:
        """Merge the small files into a compacted one; the caller holds the lock of the storage.

        Only files that have not changed since they were read are deleted, so that whatever is written meanwhile, as by
        a process that slept through the loss of its lock, is kept and counts.

        Args:
            new: Additional rows to store; they replace all rows of their stems.

        Returns:
            The number of files that were merged and deleted.

        Raises:
            OSError: If a listed file is gone: what an object store lists late must not be taken for what there is.
        """
        before, listing = self.storage.stamps(self.table), self.list()
        replaced = listing.compacted[:-1]
        if listing.small or new is not None:
            replaced = listing.compacted
            with pa.BufferOutputStream() as buffer:
                self._write_groups(buffer, self._live(listing, new))
                self.storage.write(self.name(listing.next()), buffer.getvalue().to_pybytes())
        after, merged = self.storage.stamps(self.table), [*map(self.name, (*replaced, *listing.small))]
        unchanged = [name for name in merged if name in before and before[name] == after.get(name)]
        for name in unchanged:
            self.storage.delete(name)
        return len(unchanged)

    def stems(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return the stem of each row."""
        run_id, *others = (rows.column(name).cast(pa.string()) for name in _STEM_COLUMNS[self.table])
        if not others:
            return run_id
        dataset, sha256, metric = others
        versioned = pc.binary_join_element_wise(dataset, pc.utf8_slice_codeunits(sha256, 0, 8), "@")
        return pc.binary_join_element_wise(run_id, versioned, pc.replace_substring(metric, ":", "."), "-")

    def _stems_of(self, run_id: str, compacted: str) -> set[str]:
        columns = _STEM_COLUMNS[self.table]
        with self._open(compacted) as file:
            rows = file.read(columns=list(columns))
            check_names({column: rows.column(column) for column in columns})
        return set(self.stems(rows.filter(pc.equal(rows.column("run_id"), run_id))).to_pylist())

    def _parts(self, names: Sequence[str], *, totals: bool = False) -> dict[str, pa.Table]:
        """Return the rows of those files that exist."""

        def read(some: Sequence[str]) -> dict[str, pa.Table]:
            parts = {stem: self._part(stem, totals=totals) for stem in some}
            return {stem: part for stem, part in parts.items() if part is not None}

        each = max(1, min(_OF_A_TASK, len(names) // _THREADS))
        tasks = [names[start : start + each] for start in range(0, len(names), each)]
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            return {stem: part for parts in pool.map(read, tasks) for stem, part in parts.items()}

    def _live(self, listing: Listing, new: pa.Table | None) -> Iterator[pa.Table]:
        """Yield the rows that count, in batches."""
        replaced = set(self.stems(new).unique().to_pylist()) if new is not None else set()
        if listing.newest:
            shadows = sorted(replaced.union(listing.small))
            with self._open(listing.newest) as file:
                for group in range(file.num_row_groups):
                    rows = self._unshadowed(self._of_today(file.read_row_group(group), listing.newest), shadows)
                    self._check(rows, {listing.newest: rows}, large=True)
                    yield rows
        small = [stem for stem in listing.small if stem not in replaced]
        for start in range(0, len(small), FILES_AT_ONCE):
            parts = self._parts(small[start : start + FILES_AT_ONCE])
            if len(parts) < len(small[start : start + FILES_AT_ONCE]):
                gone = next(stem for stem in small[start : start + FILES_AT_ONCE] if stem not in parts)
                raise OSError(
                    errno.ESTALE, "it was listed but is gone; try again", self.storage.address(self.name(gone))
                )
            rows = pa.concat_tables([self.schema.empty_table(), *parts.values()])
            self._check(rows, parts)
            yield rows
        if new is not None:
            yield from (new.slice(start, ROWS_A_GROUP) for start in range(0, new.num_rows, ROWS_A_GROUP))

    def _unshadowed(self, rows: pa.Table, shadows: Sequence[str]) -> pa.Table:
        """Return the rows whose stems are not among the sorted ``shadows``."""
        run_ids = rows.column("run_id").cast(pa.string())
        touched = [run_id for run_id in run_ids.unique().to_pylist() if _any_begins(shadows, run_id)]
        if not touched:
            return rows
        suspect = pc.is_in(run_ids, pa.array(touched, pa.string()))
        suspects = rows.filter(suspect)
        shadowed = pc.is_in(self.stems(suspects), pa.array(shadows, pa.string()))
        return pa.concat_tables([rows.filter(pc.invert(suspect)), suspects.filter(pc.invert(shadowed))])

    def _write_groups(self, sink: pa.NativeFile, parts: Iterable[pa.Table]) -> None:
        """Write a compacted file; each row group of scores has only whole sets or only images, to read fewer."""
        waiting: defaultdict[bool, list[pa.Table]] = defaultdict(list)
        with pq.ParquetWriter(sink, self.schema, compression="zstd", write_page_checksum=True) as writer:
            for part in parts:
                of_image = pc.is_valid(part.column("image")) if self.table == "scores" else pa.repeat(True, len(part))
                for kind, mask in ((False, pc.invert(of_image)), (True, of_image)):
                    waiting[kind].append(part.filter(mask).cast(self.schema))
                    if sum(map(len, waiting[kind])) >= ROWS_A_GROUP:
                        writer.write_table(pa.concat_tables(waiting.pop(kind)), ROWS_A_GROUP)
            for rest in waiting.values():
                writer.write_table(pa.concat_tables(rest), ROWS_A_GROUP)

    @contextlib.contextmanager
    def _open(self, stem: str) -> Iterator[pq.ParquetFile]:
        """Open a file, dictionary-encoding text if it is compacted, and report faults in one sentence.

        Raises:
            FileNotFoundError: If there is none.
        """
        name = self.name(stem)
        try:
            if _COMPACTED.fullmatch(stem):  # read in parts; a small file takes one request
                with self.storage.open(name) as source:
                    about = pq.read_metadata(source)
                    there = set(about.schema.names)
                    text = [field.name for field in self.schema if field.type == pa.string() and field.name in there]
                    yield pq.ParquetFile(source, metadata=about, read_dictionary=text, page_checksum_verification=True)
            else:
                content = pa.BufferReader(self.storage.read(name))
                yield pq.ParquetFile(content, page_checksum_verification=True)
        except InputError:
            raise
        except (pa.ArrowException, LookupError, ValueError) as error:
            raise InputError(f"'{self.storage.address(name)}' is not a results file of sgbench: {error}.") from error
        except OSError as error:
            if error.errno is not None:  # Arrow's own error, for a damaged page, has no number
                raise
            raise InputError(f"'{self.storage.address(name)}' cannot be read: {explained(error)[1]}.") from error

    def _of_today(self, rows: pa.Table, stem: str) -> pa.Table:
        version = rows.column("schema_version")[0].as_py() if rows.num_rows else SCHEMA_VERSION
        if version != SCHEMA_VERSION:
            path = self.storage.address(self.name(stem))
            raise InputError(f"'{path}' has schema version {version}; this sgbench reads {SCHEMA_VERSION}.")
        return of_today(self.table, rows)

    def _check(self, rows: pa.Table, parts: Mapping[str, pa.Table], *, large: bool = False) -> None:
        """Refuse rows that no reader could use; all at once, as checks of many small tables take long.

        Args:
            rows: The rows.
            parts: The files that they come from, by stem.
            large: Whether to leave repeated rows to `sgbench.runs.maintenance.verify`: finding them takes a second for
                a million rows, and a compaction makes none.

        Raises:
            InputError: Naming the file of the first such row.
        """
        check = check_values if large else check_rows
        try:
            check(self.table, rows)
        except ValueError as error:
            for stem, part in parts.items():
                try:
                    check(self.table, part)
                except ValueError as why:
                    path = self.storage.address(self.name(stem))
                    raise InputError(f"'{path}' has a row that cannot be used: {why}.") from why
            where = self.storage.address(self.table)  # each file by itself is sound
            raise InputError(f"'{where}' has rows that cannot be used: {error}.") from error


def whole_sets(scores: pa.Table) -> pa.Table:
    """Return the rows of `SCORES` for whole test sets."""
    return scores.filter(pc.is_null(scores.column("image")))


def _has_totals(file: pq.ParquetFile, group: int) -> bool:
    """Return whether a row group may have rows for whole sets."""
    if "image" not in file.schema.names:
        return True  # a file of another version, which is reported on reading
    statistics = file.metadata.row_group(group).column(file.schema.names.index("image")).statistics
    return statistics is None or not statistics.has_null_count or statistics.null_count > 0


def _any_begins(names: Sequence[str], beginning: str) -> bool:
    at = bisect_left(names, beginning)
    return at < len(names) and names[at].startswith(beginning)


def _encoded(rows: pa.Table) -> pa.Table:
    """Return a table with text as dictionaries."""
    for at, field in enumerate(rows.schema):
        if field.type == pa.string():
            rows = rows.set_column(at, field.with_type(TEXT), rows.column(at).dictionary_encode())
    return rows
