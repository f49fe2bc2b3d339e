"""Links in data frames."""

from typing import Any

import numpy as np

from .links import Links, from_ids, from_sparse, number, numbered, only, read_weights


def from_table(table: Any, weights: Any, num_nodes: int | None, weight: str | None) -> Links:
    """A data frame: the columns named source and target, else the first two; and ``weight``, or the third of three.

    Or an adjacency matrix, if its index has the same names as its columns.
    """
    from readers.graphs.edge_list import NUMBERING, plain_name

    columns, index = list(table.columns), list(getattr(getattr(table, "index", None), "names", ()))
    *ends, named_weight = named_columns(columns)
    if None in ends and None not in named_columns([*index, *columns])[:2] and not is_adjacency(table):
        table = table.reset_index([name for name in index if name is not None and name not in columns])
        columns = list(table.columns)
        *ends, named_weight = named_columns(columns)
    if None in ends:
        if is_adjacency(table):
            return only(from_adjacency(table), weights, num_nodes, "an adjacency matrix")
        if is_cross_table(table):
            raise ValueError(
                "a matrix has the same names for rows and columns; .stack().reset_index() makes a list of links of it"
            )
        ends = [column for column in columns if not plain_name(column).startswith("unnamed:")][:2]
        if len(ends) < 2:
            raise ValueError(f"a table of links has columns source and target, not only {columns}")
    sources, targets = (read_ends(column_of(table, end), end) for end in ends)
    if weights is None and weight is not None:
        rest = [column for column in columns if column not in ends]
        if weight in columns:
            weights = column_of(table, weight)
        elif weight == "weight" and named_weight in rest:
            weights = column_of(table, named_weight)
        elif weight != "weight":
            raise ValueError(f"the table has no column {weight!r} for weights, but {columns}")
        elif len(columns) == 3 and not NUMBERING.fullmatch(plain_name(rest[0])):
            weights = numbers_in(column_of(table, rest[0]))
    if sources.dtype.kind in "iu" and targets.dtype.kind in "iu":
        pairs = np.stack([sources, targets], 1)
        if pairs.dtype.kind in "iu":
            return from_ids(pairs, weights, num_nodes)
    edges, names = number(sources.tolist(), targets.tolist())
    return only(Links(edges, read_weights(weights, len(edges)), names), None, num_nodes, "a table of named nodes")


def named_columns(columns: list[Any]) -> list[Any]:
    """Those of the columns that are named as source, target and weight; None for each that is not there."""
    from readers.graphs.edge_list import SOURCES, TARGETS, WEIGHTS, plain_name

    known = SOURCES | {"u"}, TARGETS | {"v"}, WEIGHTS
    return [next((column for column in columns if plain_name(column) in names), None) for names in known]


def column_of(table: Any, name: Any) -> Any:
    """The column of this name; ValueError if there are several."""
    if list(table.columns).count(name) > 1:
        raise ValueError(f"the table has several columns {name!r}: rename all but one of them")
    return table[name]


def numbers_in(column: Any) -> np.ndarray | None:
    """The numbers of a column, be they objects (decimals) or texts; None if it has others, truths or times."""
    values = np.asarray(column)
    if values.dtype.kind == "O" and any(isinstance(value, bool | np.bool_) for value in values):
        return None
    try:
        return values.astype(np.float64) if values.dtype.kind in "iufOU" else None
    except (TypeError, ValueError):
        return None


def read_ends(column: Any, name: Any) -> np.ndarray:
    """A column of a table of links; whole numbers as integers. ValueError if a node is missing."""
    ends = np.asarray(column)
    missing = np.asarray(column.isna()) if hasattr(column, "isna") else np.array([end is None for end in ends], bool)
    if missing.any():
        raise ValueError(f"row {int(np.flatnonzero(missing)[0])} of the table has no node in the column {name!r}")
    return ends.astype(np.int64) if ends.dtype.kind == "f" and (ends == np.floor(ends)).all() else ends


def is_adjacency(table: Any) -> bool:
    """Whether a table is a matrix: its index has the names of its columns, not the default ones of two or three."""
    index, columns = list(getattr(table, "index", ())), list(table.columns)
    if len(index) != len(columns) or set(index) != set(columns) or len(set(index)) != len(index):
        return False
    return len(index) > 3 or type(table.index).__name__ != "RangeIndex"


def is_cross_table(table: Any) -> bool:
    """Whether the columns are nodes: they have a name, that of an end or beside one of the rows, or many, or no texts.

    A list of links whose columns have a name is none.
    """
    name = getattr(table.columns, "name", None)
    if name is None:
        return False
    if len(table.columns) > 3 or any(level is not None for level in [*table.index.names, *named_columns([name])]):
        return True
    return not all(isinstance(column, str) for column in table.columns)


def from_adjacency(table: Any) -> Links:
    """A matrix with named rows and columns, row -> column."""
    from scipy.sparse import coo_array

    names = list(table.index)
    return from_sparse(coo_array(np.asarray(table[names])))._replace(names=numbered(names))
