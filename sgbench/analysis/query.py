"""SQL queries on a store, answered by DuckDB, which can read the views below and nothing else."""

import concurrent.futures
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import duckdb
import pyarrow as pa

from sgbench.analysis.paper import PAPER, paper
from sgbench.analysis.tunings import TRIALS
from sgbench.core.errors import InputError
from sgbench.store.schema import TABLES

T = TypeVar("T")

MEMORY = "50%"
"""Memory limit of a query and of its answer, of what the machine has; the tables that it reads are not counted."""

_BATCH = 100_000
"""Rows of an answer that are taken at once."""

_GRACE_SECONDS = 0.5
"""How long to wait for DuckDB to stop; it cannot stop in the middle of a function such as ``list_sort``."""

_POLL_SECONDS = 0.1
"""How often a signal is looked for, which may reach another thread than the one that waits."""

_THREAD = "sgbench-query"

_INEXACT = re.compile(r"\b(UHUGEINT|TIME WITH TIME ZONE)\b")
"""Types of which Arrow would get other values."""

_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,  # no file, no network, no extension
    "python_enable_replacements": False,  # no variable of this process by its name
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "temp_directory": "",
    "memory_limit": MEMORY,
}

LABELS = pa.schema([pa.field("loss", pa.string(), nullable=False), pa.field("label", pa.string(), nullable=False)])
"""The view of what tables call losses."""

VIEWS = {**TABLES, "labels": LABELS, "trials": TRIALS, "paper": PAPER}
"""The views that a query can read, by name."""


def query(tables: Mapping[str, Callable[[], pa.Table]], sql: str, *, timeout: float | None = None) -> pa.Table:
    """Answer one SELECT; Ctrl-C ends it within a second.

    Args:
        tables: Readers of the views of a store, by the names in `VIEWS`, except for ``paper``; only views that the
            query names are read.
        sql: In DuckDB's dialect. It may use these and ``paper``, the numbers printed in the paper; ``DESCRIBE scores``
            and ``SUMMARIZE runs`` are SELECTs too.
        timeout: The most seconds that it may take after the views have been read; no limit by default.

    Raises:
        InputError: If it is not one SELECT, DuckDB refuses it, it takes longer than ``timeout`` or more memory than
            `MEMORY`, or the answer has two columns of one name or a type that Arrow lacks.
        KeyboardInterrupt: If it is interrupted. What DuckDB could not stop then goes on in a thread; see `is_running`.
    """
    views: dict[str, Callable[[], pa.Table]] = {**tables, "paper": paper}
    connection = duckdb.connect(":memory:", config=_CLOSED)
    try:
        connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
        _check(connection.extract_statements(sql))
        for name, read in views.items():
            named = re.search(name, sql, re.IGNORECASE)  # not to read a store for nothing
            connection.register(name, read() if named else VIEWS[name].empty_table())
        answer = _interruptible(connection, lambda: _answer(connection, sql), timeout)
    except duckdb.Error as error:
        raise InputError(f"the query cannot be answered: {_sentence(error)}") from error
    except TimeoutError as error:
        raise InputError(f"the query took longer than {timeout:g} s, the limit that was set; ask for less.") from error
    finally:
        if not is_running():  # closing would wait for it
            connection.close()
    for name in answer.column_names:
        if answer.column_names.count(name) > 1:
            raise InputError(f"the answer has several columns '{name}'; give each its own name with AS.")
    return answer


def is_running() -> bool:
    """Return whether DuckDB is still at a query that was ended, so that the process cannot end in the usual way."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


def _interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], T], timeout: float | None) -> T:
    """Use a connection in a thread, so that this one can interrupt it.

    Raises:
        TimeoutError: If it takes longer.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, name=_THREAD, daemon=True)
    thread.start()
    ends = math.inf if timeout is None else time.monotonic() + timeout
    try:
        while not future.done() and (left := ends - time.monotonic()) > 0:
            concurrent.futures.wait([future], min(left, _POLL_SECONDS))
        return future.result(0)
    except BaseException:
        connection.interrupt()
        raise
    finally:
        thread.join(_GRACE_SECONDS)


def _answer(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    ((limit,),) = connection.sql("SELECT current_setting('memory_limit')").fetchall()
    relation = connection.sql(sql)
    for name, kind in zip(relation.columns, relation.types, strict=True):
        if found := _INEXACT.search(str(kind)):
            raise InputError(
                f"column '{name}' is of type {found[1]}, which answers cannot hold; CAST it to VARCHAR or another type."
            )
    reader = relation.to_arrow_reader(_BATCH)
    batches, size = [], 0
    for batch in reader:
        batches.append(batch)
        size += batch.nbytes
        if size > _bytes(limit):
            raise InputError(f"the answer takes more than {limit} of memory; ask for less, or for fewer rows by LIMIT.")
    return pa.Table.from_batches(batches, reader.schema)


def _bytes(text: str) -> float:
    """Return the bytes of a text such as ``11.7 GiB``."""
    number, unit = text.split()
    return float(number) * 1024.0 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit)


def _check(statements: list[duckdb.Statement]) -> None:
    if len(statements) != 1:
        raise InputError(f"the query has {len(statements) or 'no'} statements; one SELECT is needed.")
    if (kind := statements[0].type) != duckdb.StatementType.SELECT:
        raise InputError(f"the query is a statement of type {kind.name}; a store is read-only, so a SELECT is needed.")


def _sentence(error: duckdb.Error) -> str:
    """Return DuckDB's message without the error type, the excerpt of the query, and hints for programmers."""
    said = str(error).partition("\n\n")[0].partition(": ")[2] or str(error)
    said = re.sub(r"\s*\n\s*", " ", said).strip()
    return said if said.endswith(("?", ".", "!")) else f"{said}."
