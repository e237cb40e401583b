"""Which rows of the database are this library's own: those of the forms in which it writes them.

    form     key   tag           mode  filename             value        size
    ───────────────────────────────────────────────────────────────────────────────────
    small    text  text or NULL  1     NULL                 blob         its length
    large    text  text or NULL  2     aa/bb/….val          NULL         0 or more
    counter  text  NULL          1     NULL                 0 or more    0 or more

Who can write to the directory can write any row: no seal covers its columns. Of another form's row nothing
is used, least of all its filename; diskcache would unpickle some of them and remove the files of others.
"""

from __future__ import annotations

from typing import Any, Final

from diskcache.core import MODE_BINARY, MODE_RAW

from hypernodes.cache.files import is_name

SMALL: Final[int] = MODE_RAW
LARGE: Final[int] = MODE_BINARY

_HEX: Final = "[0-9a-f]"
_NAME: Final = f"{_HEX * 2}/{_HEX * 2}/{_HEX * 28}.val"
_LATEST: Final = 10**11  # seconds since the epoch; beyond are no times, and what cannot be printed as one

# GLOB and length end at a NUL character in a text, so that the length is taken of the bytes.
HAS_FILE: Final = (
    f"(mode = {LARGE} AND value IS NULL AND typeof(filename) = 'text' "
    f"AND length(CAST(filename AS BLOB)) = 38 AND filename GLOB '{_NAME}')"
)
"""SQL: whether a row names a file that is the library's to remove."""

HAS_VALUE: Final = f"((mode = {SMALL} AND filename IS NULL AND typeof(value) = 'blob') OR {HAS_FILE})"
"""SQL: whether a row holds bytes in one of the two forms."""

_HAS_TIMES: Final = (
    f"store_time BETWEEN 0 AND {_LATEST} AND access_time BETWEEN 0 AND {_LATEST} "
    "AND (expire_time IS NULL OR typeof(expire_time) = 'real')"
)
IS_OWN: Final = (
    f"(raw = 1 AND typeof(key) = 'text' AND (tag IS NULL OR typeof(tag) = 'text') AND {_HAS_TIMES} "
    f"AND typeof(size) = 'integer' AND size >= 0 AND {HAS_VALUE} "
    f"AND (mode = {LARGE} OR size = length(value)))"
)
"""SQL: whether all columns of a row that holds bytes are as this library writes them."""

IS_COUNTER: Final = (
    f"(raw = 1 AND typeof(key) = 'text' AND tag IS NULL AND {_HAS_TIMES} AND mode = {SMALL} "
    "AND filename IS NULL AND typeof(value) = 'integer' AND value >= 0)"
)
"""SQL: whether a row is a counter."""

MAY_BE_NO_TEXT: Final = " OR ".join(
    f"{column} GLOB '*[^ -~]*' OR length({column}) <> length(CAST({column} AS BLOB))"
    for column in ("key", "tag")
)
"""SQL: whether the texts of a row have anything but ASCII, which SQLite does not check to be UTF-8."""

FILE_OF: Final = f"CASE WHEN {HAS_FILE} THEN filename END"
"""SQL: the name of a row's file, if it is the library's to remove."""


def has_value(tag: object, used: object, mode: object, filename: Any, value: object) -> bool:
    """Whether a row that was read holds bytes in one of the two forms: the same as in SQL, but faster."""
    return (
        (
            (mode == SMALL and filename is None and type(value) is bytes)
            or (mode == LARGE and value is None and type(filename) is str and is_name(filename))
        )
        and (tag is None or type(tag) is str)
        and type(used) is float
    )
