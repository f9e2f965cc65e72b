"""Pieces of SQL that more than one query uses."""

from sqlalchemy.ext.asyncio import AsyncEngine


def ip16(column: str) -> str:
    """SQL for the 16 bytes of an inet or cidr column's address, IPv4 mapped.

    ``inet_send`` puts four bytes before the address: family, prefix length, is it a cidr, size.
    """
    address = f"substr(inet_send(CAST({column} AS inet)), 5)"
    mapped = r"'\x00000000000000000000ffff'::bytea"
    return f"CASE family({column}) WHEN 4 THEN {mapped} || {address} ELSE {address} END"


def optional(expression: str, column: str, otherwise: str) -> str:
    """SQL for an expression of a column that may be null."""
    return f"CASE WHEN {column} IS NULL THEN {otherwise} ELSE {expression} END"


def prefix_len(column: str) -> str:
    """SQL for the prefix length of an inet or cidr column as one of 128 bits."""
    return f"masklen({column}) + CASE family({column}) WHEN 4 THEN 96 ELSE 0 END"


def mac6(column: str) -> str:
    """SQL for the 6 bytes of a MAC that is stored as a bigint."""
    return f"substr(int8send({column}), 3)"


def autocommit(engine: AsyncEngine) -> AsyncEngine:
    """The engine for single statements, each its own transaction: one round trip instead of three.

    A single statement sees one snapshot of the database, whatever it joins.
    """
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def ids_in(packed: str) -> str:
    """SQL for the array of the UUIDs that a bytea parameter holds, 16 bytes each.

    An array as such would be a Python object for each.
    """
    size = f"octet_length({packed}::bytea)"
    one = f"encode(substr({packed}::bytea, n * 16 + 1, 16), 'hex')::uuid"
    return f"ARRAY(SELECT {one} FROM generate_series(0, {size} / 16 - 1) AS n)"  # noqa: S608  of a parameter
