"""The address of a remote tier, as a user gives it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

from hypernodes.exceptions import ExtraMissingError, OptionError

_SCHEMES: Final = ("s3", "gs", "az", "file")
INSTALL: Final = "pip install 'hypernodes-ray[remote]'"
"""What installs the package that remote tiers need."""


def check_url(url: str) -> str:
    """Return the address of a tier without a slash at its end, or raise an error that says what to write."""
    if not isinstance(url, str):
        raise OptionError(f"DiskCache: remote must be an address as text, not {type(url).__name__}.")
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not (parts.path if parts.scheme == "file" else parts.netloc):
        raise ValueError(
            f"DiskCache: remote={url!r} is not an address of a bucket. Write s3://bucket/prefix, "
            "gs://bucket/prefix, az://container/prefix, or file:///directory."
        )
    if "@" in parts.netloc or parts.query:
        raise ValueError(
            "DiskCache: remote must not have credentials in it, since it is shown and sent to workers. Give "
            "them in the environment, such as AWS_ACCESS_KEY_ID."
        )
    if find_spec("obstore") is None:
        raise ExtraMissingError(f"DiskCache(remote={url!r}) needs the package obstore: {INSTALL}")
    return url.rstrip("/")
