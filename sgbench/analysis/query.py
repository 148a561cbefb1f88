"""SQL queries on a store, answered by DuckDB, which can read the views below and nothing else."""

import re
from collections.abc import Callable, Mapping

import duckdb
import pyarrow as pa

from sgbench.analysis.paper import PAPER, paper
from sgbench.core.errors import InputError
from sgbench.store.schema import TABLES

MEMORY = "4GB"
"""Memory limit of a query, besides the tables that it reads."""

_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,  # no file, no network, no extension
    "python_enable_replacements": False,  # no variable of this process by its name
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "temp_directory": "",
    "memory_limit": MEMORY,
}

VIEWS = {**TABLES, "paper": PAPER}
"""The views that a query can read, by name."""


def query(tables: Mapping[str, Callable[[], pa.Table]], sql: str) -> pa.Table:
    """Answer one SELECT.

    Args:
        tables: Readers of the views ``runs``, ``scores`` and ``history``; only views that the query names are read.
        sql: In DuckDB's dialect. It may use these and ``paper``, the numbers printed in the paper; ``DESCRIBE scores``
            and ``SUMMARIZE runs`` are SELECTs too.

    Raises:
        InputError: If it is not one SELECT, DuckDB refuses it, or two columns of the answer have the same name.
    """
    views: dict[str, Callable[[], pa.Table]] = {**tables, "paper": paper}
    with duckdb.connect(":memory:", config=_CLOSED) as connection:
        connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
        try:
            _check(connection.extract_statements(sql))
            for name, read in views.items():
                named = re.search(name, sql, re.IGNORECASE)  # not to read a store for nothing
                connection.register(name, read() if named else VIEWS[name].empty_table())
            answer: pa.Table = connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise InputError(f"the query cannot be answered: {_sentence(error)}") from error
    for name in answer.column_names:
        if answer.column_names.count(name) > 1:
            raise InputError(f"the answer has several columns '{name}'; give each its own name with AS.")
    return answer


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
