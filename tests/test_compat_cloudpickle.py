"""What `hypernodes._compat.cloudpickle` uses of cloudpickle is there, and does what it is used for."""

import io
import pickle

import cloudpickle
import pytest

TODO = f"cloudpickle {cloudpickle.__version__} has changed: see Pickler in hypernodes/_compat/cloudpickle.py"


@pytest.fixture
def pickler_class():
    try:
        from hypernodes._compat.cloudpickle import Pickler
    except ImportError:
        pytest.fail(TODO)
    return Pickler


def test_a_subclass_can_reduce_objects_in_its_own_way(pickler_class):
    class Special:
        pass

    class Pickler(pickler_class):
        def reducer_override(self, obj):
            return (str, ("special",)) if isinstance(obj, Special) else super().reducer_override(obj)

    stream = io.BytesIO()
    Pickler(stream, protocol=5).dump([Special(), lambda x: x + 1, 3])
    special, function, number = pickle.loads(stream.getvalue())
    assert (special, function(1), number) == ("special", 2, 3), TODO


def test_large_buffers_can_be_left_out(pickler_class):
    buffers = []
    stream = io.BytesIO()
    data = pickle.PickleBuffer(bytearray(100))
    pickler_class(stream, protocol=5, buffer_callback=buffers.append).dump(data)
    assert buffers == [data], TODO


def test_one_pickler_pickles_several_values(pickler_class):
    stream = io.BytesIO()
    pickler = pickler_class(stream, protocol=5)
    shared = ["shared"]
    values = []
    for value in ([shared], [shared, lambda: 1]):
        stream.seek(0)
        stream.truncate()
        pickler.clear_memo()
        pickler.dump(value)
        values.append(pickle.loads(stream.getvalue()))
    assert values[0] == [shared], TODO
    assert values[1][1]() == 1, TODO
