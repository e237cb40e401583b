"""Which rows of the database has this library written? Those of the three forms in which it writes them.

    form     key   tag           mode  filename             value        size
    ───────────────────────────────────────────────────────────────────────────────────
    small    text  text or NULL  1     NULL                 blob         its length
    large    text  text or NULL  2     aa/bb/….val          NULL         0 or more
    counter  text  NULL          1     NULL                 0 or more    0 or more

Whoever can write to the directory can write any row, and no seal covers its columns. Nothing of a row of
another form is used, above all not its filename.
"""

from __future__ import annotations

from typing import Any, Final

from hypernodes.cache.schema import FILE_MODE, SMALL_VALUE_MODE
from hypernodes.cache.value_files import is_value_file_name

SMALL: Final = SMALL_VALUE_MODE
LARGE: Final = FILE_MODE

_HEX: Final = "[0-9a-f]"
_FILE_NAME: Final = f"{_HEX * 2}/{_HEX * 2}/{_HEX * 28}.val"
_MAX_TIME: Final = 10**11
"""Seconds since the epoch. A later time is forged, and could not be formatted."""

# GLOB and length stop at a NUL character in a string. The length of the bytes includes what follows it.
HAS_FILE: Final = (
    f"(mode = {LARGE} AND value IS NULL AND typeof(filename) = 'text' "
    f"AND length(CAST(filename AS BLOB)) = 38 AND filename GLOB '{_FILE_NAME}')"
)
"""SQL: whether a row names a file that the library may remove."""
HAS_VALUE: Final = f"((mode = {SMALL} AND filename IS NULL AND typeof(value) = 'blob') OR {HAS_FILE})"
"""SQL: whether a row has a value in one of the two forms for values."""

_HAS_TIMES: Final = (
    f"store_time BETWEEN 0 AND {_MAX_TIME} AND access_time BETWEEN 0 AND {_MAX_TIME} "
    "AND (expire_time IS NULL OR typeof(expire_time) = 'real')"
)
IS_VALUE_ROW: Final = (
    f"(raw = 1 AND typeof(key) = 'text' AND (tag IS NULL OR typeof(tag) = 'text') AND {_HAS_TIMES} "
    f"AND typeof(size) = 'integer' AND size >= 0 AND {HAS_VALUE} "
    f"AND (mode = {LARGE} OR size = length(value)))"
)
"""SQL: whether a row with a value has the form in which this library writes it, in all columns."""
IS_COUNTER: Final = (
    f"(raw = 1 AND typeof(key) = 'text' AND tag IS NULL AND {_HAS_TIMES} AND mode = {SMALL} "
    "AND filename IS NULL AND typeof(value) = 'integer' AND value >= 0)"
)
"""SQL: whether a row is a counter."""
MAY_BE_INVALID_TEXT: Final = " OR ".join(
    f"{column} GLOB '*[^ -~]*' OR length({column}) <> length(CAST({column} AS BLOB))"
    for column in ("key", "tag")
)
"""SQL: whether strings of a row contain more than ASCII. SQLite does not check that they are UTF-8."""
FILE_OF: Final = f"CASE WHEN {HAS_FILE} THEN filename END"
"""SQL: the name of a row's file, if the library may remove it."""


def has_valid_value(
    tag: object, used: object, size: object, mode: object, filename: Any, value: object
) -> bool:
    """Return whether a row that was read has a value in one of the two forms, faster than SQL would."""
    return (
        (
            (mode == SMALL and filename is None and type(value) is bytes)
            or (mode == LARGE and value is None and type(filename) is str and is_value_file_name(filename))
        )
        and (tag is None or type(tag) is str)
        and type(used) is float
        and type(size) is int
    )
