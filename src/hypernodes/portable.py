# ruff: noqa
"""Old names, until the last module uses the new ones."""

from __future__ import annotations

from hypernodes.serialization.broadcast import InlineValue as Inline
from hypernodes.serialization.broadcast import PlacedValue as Shared
from hypernodes.serialization.errors import ExceptionWrapper as Carrier
from hypernodes.serialization.errors import RemoteTraceback
from hypernodes.serialization.errors import SerializedError as PackedError
from hypernodes.serialization.errors import deserialize_error as unpack_error
from hypernodes.serialization.errors import serialize_error as pack_error
from hypernodes.serialization.pickling import ByCloudpickle as Portable
from hypernodes.serialization.pickling import OutOfBand as Carried
from hypernodes.serialization.pickling import Serialized as Packed
from hypernodes.serialization.pickling import dumps, dumps_each, loads
from hypernodes.serialization.pickling import register_out_of_band as carry
from hypernodes.serialization.pickling import serialize as pack
from hypernodes.serialization.remote import REMOTE_MIN_BYTES as KEEP_FROM
from hypernodes.serialization.remote import RemoteList as Gathered
from hypernodes.serialization.remote import RemoteValue as Kept
from hypernodes.serialization.remote import SeparateResults as Several
from hypernodes.serialization.remote import resolve as fetched
from hypernodes.text import seconds, short
