"""The components of values of well-known libraries, without importing any of these libraries."""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import Any, Final

from hypernodes.cache.hashing import LARGE, digest_of_buffer
from hypernodes.exceptions import SignatureError


def components_of(kind: type, value: Any) -> tuple[object, ...] | None:
    """Return the components that determine a value of a well-known library; ``None`` for any other value."""
    try:
        return _components(kind, value)
    except SignatureError:
        raise
    except Exception:  # The library does not support this for every value, such as a sparse tensor.
        return None


def _components(kind: type, value: Any) -> tuple[object, ...] | None:
    match kind.__module__.partition(".")[0]:
        case "numpy":
            return _numpy(kind, value)
        case "pandas":
            return _pandas(kind, value)
        case "pyarrow" if kind.__name__ in ("Table", "RecordBatch"):
            return _arrow(value)
        case "pyarrow" if hasattr(value, "type") and hasattr(value, "null_count"):
            return (kind.__name__ == "ChunkedArray", *_arrow(sys.modules["pyarrow"].table({"": value})))
        case "polars" if kind.__name__ in ("DataFrame", "Series"):
            return _polars(value)
        case "torch" if kind.__name__ in ("layout", "memory_format"):
            return (str(value),)
        case "typing" if kind.__name__ == "NewType":
            return (value.__name__, value.__supertype__)
        case "dataclasses" if isinstance(value, dataclasses.Field):
            return (
                value.name,
                value.default,
                value.default_factory,
                value.init,
                value.kw_only,
                value.metadata,
            )
        case "re" if isinstance(value, re.Pattern):
            return (value.pattern, value.flags)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, getattr(torch, "Tensor", ())):
        return (kind, *_torch(torch, value))
    if hasattr(kind, "model_fields") and hasattr(kind, "model_dump"):
        fields = {name: getattr(value, name) for name in kind.model_fields}
        return (
            kind,
            fields,
            value.model_extra,
            value.model_fields_set,
        )  # They decide what model_dump writes.
    return None


def _torch(torch: Any, tensor: Any) -> tuple[object, ...]:
    plain = tensor.detach().as_subclass(torch.Tensor).cpu().resolve_conj().resolve_neg().contiguous()
    # The bytes are read, since numpy lacks some of the types.
    content = [plain.reshape(-1).view(torch.uint8).numpy()]
    if plain.is_quantized:
        content.append(plain.dequantize())
    state = (tensor.requires_grad, tensor.grad if tensor.is_leaf else None, dict(vars(tensor)))
    return (str(plain.dtype), tuple(plain.shape), str(plain.layout), content, *state)


def _polars(value: Any) -> tuple[object, ...]:
    level = sys.modules[
        "polars"
    ].CompatLevel.oldest()  # Later levels have string views, which depend on addresses.
    schema = value.schema if hasattr(value, "schema") else {value.name: value.dtype}
    if any(str(kind) == "Object" for kind in schema.values()):
        columns = value.get_columns() if hasattr(value, "get_columns") else [value]
        return (str(schema), [column.to_list() for column in columns])
    return (str(schema), value.rechunk().to_arrow(compat_level=level))


def _arrow(table: Any) -> tuple[object, ...]:
    pyarrow = sys.modules["pyarrow"]
    if any(pyarrow.types.is_boolean(column.type) or column.null_count for column in table.columns):
        # A copy is made, since unused bits in the last byte of a bit map can have any value.
        table = table.take(pyarrow.array(range(table.num_rows), pyarrow.int64()))
    if hasattr(table, "combine_chunks"):
        table = table.combine_chunks()  # The division into chunks does not count.
    content = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(content, table.schema) as stream:  # It has dictionaries, unlike a batch.
        stream.write(table)
    return (str(table.schema), memoryview(content.getvalue()), str(pyarrow.__version__))


def _numpy(kind: type, value: Any) -> tuple[object, ...] | None:
    if kind.__name__ in ("void", "longdouble", "clongdouble"):
        return (str(value.dtype), _content_of_array(sys.modules["numpy"].asarray(value)))
    if kind.__name__ == "ndarray":
        return (value.dtype.str, str(value.dtype), value.shape, _content_of_array(value))
    if kind.__name__.endswith("DType"):
        return (str(value),)
    if isinstance(value, sys.modules["numpy"].generic):
        return (str(value.dtype), value.item() if value.dtype.hasobject else value.tobytes())
    return None


def _content_of_array(values: Any) -> object:
    if values.dtype.names is not None:  # Between the fields there may be bytes without a meaning.
        return [_content_of_array(values[name]) for name in values.dtype.names]
    if values.dtype.hasobject:
        return values.tolist()
    if values.dtype.char in "gG" and values.dtype.itemsize in (16, 32):
        return _without_padding(values)
    if values.nbytes < LARGE:
        return values.tobytes()
    if not values.flags.c_contiguous:
        values = values.copy(order="C")
    # The memory is read in place: a copy would take a third as long as the digest.
    return digest_of_buffer(memoryview(values.reshape(-1).view("u1")))


def _without_padding(values: Any) -> bytes:
    """Return the bytes of long doubles: of the 16 bytes of each number, 10 are used on x86."""
    numpy = sys.modules["numpy"]
    numbers = numpy.frombuffer(values.tobytes(), "u1").reshape(-1, 16)
    is_extended = numpy.finfo(values.dtype).nmant == _BITS_OF_EXTENDED
    content: bytes = (numbers[:, :10] if is_extended else numbers).tobytes()
    return content


_BITS_OF_EXTENDED: Final = 63


def _pandas(kind: type, value: Any) -> tuple[object, ...] | None:
    if kind.__name__ == "DataFrame":
        columns = [value.iloc[:, at] for at in range(value.shape[1])]
        return (columns, value.columns, value.index, value.attrs, value.flags.allows_duplicate_labels)
    if kind.__name__ == "MultiIndex":
        return (list(value.levels), [codes.tolist() for codes in value.codes], list(value.names))
    if kind.__name__ in ("Series", "Index"):
        is_plain = type(value.dtype).__module__.startswith("numpy")
        values = value.to_numpy() if is_plain else value.array
        if kind.__name__ == "Index":
            return (str(value.dtype), values, value.name)
        more = (value.index, value.attrs, value.flags.allows_duplicate_labels)
        return (str(value.dtype), values, value.name, *more)
    if isinstance(value, sys.modules["pandas"].api.extensions.ExtensionArray):
        return _extension_array(value)
    return None


def _extension_array(array: Any) -> tuple[object, ...]:
    """Return the parts that pickle would store of an array, without what depends on its use."""
    if (of_numpy := getattr(array.dtype, "numpy_dtype", None)) is not None and hasattr(array, "_mask"):
        return (str(array.dtype), array.isna(), array.to_numpy(of_numpy, na_value=0))
    make, args, *more = array.__reduce_ex__(4)
    (state, *others) = more or [None]
    if isinstance(state, tuple):
        return (make, args, [part for part in map(_without_caches, state) if part is not None], *others)
    return (make, args, _without_caches(state), *others)


def _without_caches(state: object) -> object:
    if not isinstance(state, dict):
        return state
    return {name: part for name, part in state.items() if name not in ("_cache", "_readonly")} or None
