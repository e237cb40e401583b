"""Traps for a cache: a change that changes the result. No old result may be returned.

Each has its twin, in which nothing that matters changes, and which must hit: a cache that never hits
would not be caught in any trap.
"""

import importlib
import json
import logging
import os
import pickle
import subprocess
import sys
import textwrap
import threading

import pytest

from hypernodes import DiskCache, File, HyperNodesEngine, Pipeline, node
from hypernodes.cache.content import digest
from hypernodes.exceptions import CacheWarning

# The modules of a user: ``written`` with the node ``f``, and others. Then the replacements in them.
TRAPS = {
    "a decorator around a function of a library": (
        {
            "written": "import functools, textwrap\ndef add(g):\n    @functools.wraps(g)\n    def call(x): return len(g(str(x))) + 1\n    return call\nhelp = add(textwrap.dedent)\ndef f(x): return help(x)"
        },
        ("written", "+ 1", "+ 2"),
    ),
    "a class that a library has made of the user's fields": (
        {
            "written": "import collections\nPoint = collections.namedtuple('Point', 'a b', defaults=[1, 2], module='collections')\ndef f(x): return Point()"
        },
        ("written", "[1, 2]", "[1, 3]"),
    ),
    "a helper in another module": (
        {"written": "import aid\ndef f(x): return aid.help(x)", "aid": "def help(x): return x + 1"},
        ("aid", "x + 1", "x + 2"),
    ),
    "a helper imported by name": (
        {"written": "from aid import help\ndef f(x): return help(x)", "aid": "def help(x): return x + 1"},
        ("aid", "x + 1", "x + 2"),
    ),
    "a helper of a helper, two modules away": (
        {
            "written": "import aid\ndef f(x): return aid.help(x)",
            "aid": "import deep\ndef help(x): return deep.deeper(x)",
            "deep": "def deeper(x): return x + 1",
        },
        ("deep", "x + 1", "x + 2"),
    ),
    "a module imported within the function": (
        {"written": "def f(x):\n    import aid\n    return aid.help(x)", "aid": "def help(x): return x + 1"},
        ("aid", "x + 1", "x + 2"),
    ),
    "a helper imported within the function": (
        {
            "written": "def f(x):\n    from aid import help\n    return help(x)",
            "aid": "def help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a constant imported within the function under another name": (
        {"written": "def f(x):\n    from aid import RATE as r\n    return r * x", "aid": "RATE = 2"},
        ("aid", "RATE = 2", "RATE = 3"),
    ),
    "a module imported within a helper": (
        {
            "written": "def g(x):\n    import aid as a\n    return a.help(x)\ndef f(x): return g(x)",
            "aid": "def help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a submodule imported within the function": (
        {
            "written": "def f(x):\n    import pack.sub\n    return pack.sub.help(x)",
            "pack/__init__": "",
            "pack/sub": "def help(x): return x + 1",
        },
        ("pack/sub", "x + 1", "x + 2"),
    ),
    "a submodule imported from its package": (
        {
            "written": "def f(x):\n    from pack import sub\n    return sub.help(x)",
            "pack/__init__": "",
            "pack/sub": "def help(x): return x + 1",
        },
        ("pack/sub", "x + 1", "x + 2"),
    ),
    "a module kept in a variable": (
        {
            "written": "import aid\ndef f(x):\n    a = aid\n    return a.help(x)",
            "aid": "def help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a module asked for an attribute by its name": (
        {
            "written": "import aid\ndef f(x): return getattr(aid, 'help')(x)",
            "aid": "def help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a module that is passed on": (
        {
            "written": "import aid, other\ndef f(x): return other.call(aid, x)",
            "other": "def call(module, x): return module.help(x)",
            "aid": "def help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a module that is passed on, of which something else is mentioned": (
        {
            "written": "import aid, other\ndef f(x): return other.call(aid, x)",
            "other": "def call(module, x): return module.help(x)",
            "aid": "def call(x): return x\ndef help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a module imported within the function and passed on": (
        {
            "written": "def f(x):\n    import aid, other\n    return other.call(aid, x)",
            "other": "def call(module, x): return module.help(x)",
            "aid": "def call(x): return x\ndef help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a module imported within the function and used in a function within": (
        {
            "written": "def f(x):\n    import aid\n    def g(): return aid.help(x)\n    return g()",
            "aid": "def help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a function of a module whose name sounds like a change": (
        {"written": "import aid\ndef f(x): return aid.update(x)", "aid": "def update(x): return x + 1"},
        ("aid", "x + 1", "x + 2"),
    ),
    "a method whose name sounds like a change": (
        {
            "written": "class M:\n    def add(self, x): return x + 1\nm = M()\ndef f(x): return m.add(x)",
        },
        ("written", "x + 1", "x + 2"),
    ),
    "a constant of a module": (
        {"written": "import aid\ndef f(x): return x * aid.RATE", "aid": "RATE = 2"},
        ("aid", "RATE = 2", "RATE = 3"),
    ),
    "a class of another module": (
        {
            "written": "import aid\ndef f(x): return aid.M().rate(x)",
            "aid": "class M:\n    def rate(self, x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a base class in another module": (
        {
            "written": "import aid\nclass N(aid.M): pass\ndef f(x): return N().rate(x)",
            "aid": "class M:\n    def rate(self, x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a decorator in another module": (
        {
            "written": "import aid\n@aid.more\ndef f(x): return x",
            "aid": (
                "import functools\ndef more(g):\n    @functools.wraps(g)\n"
                "    def w(x): return g(x) + 1\n    return w"
            ),
        },
        ("aid", "g(x) + 1", "g(x) + 2"),
    ),
    "the function below a decorator": (
        {
            "written": "import aid\n@aid.more\ndef f(x): return x + 1",
            "aid": "import functools\ndef more(g):\n    @functools.wraps(g)\n    def w(x): return g(x)\n    return w",
        },
        ("written", "x + 1", "x + 2"),
    ),
    "one of two lambdas on a line": (
        {"written": "g, f = (lambda x: x + 1), (lambda x: x + 3)"},
        ("written", "x + 3", "x + 4"),
    ),
    "a constant that a list comprehension reads": (
        {"written": "K = 1\ndef f(x): return [v + K for v in [x]][0]"},
        ("written", "K = 1", "K = 2"),
    ),
    "a constant that a lambda within reads": (
        {"written": "K = 1\ndef f(x): return (lambda v: v + K)(x)"},
        ("written", "K = 1", "K = 2"),
    ),
    "a table of functions": (
        {"written": "def a(x): return x + 1\nT = {'a': a}\ndef f(x): return T['a'](x)"},
        ("written", "x + 1", "x + 2"),
    ),
    "the default of a helper": (
        {"written": "def g(x, k=1): return x + k\ndef f(x): return g(x)"},
        ("written", "k=1", "k=2"),
    ),
    "a field's type that a model checks by": (
        {
            "written": (
                "import pydantic\nclass M(pydantic.BaseModel):\n    v: int\n"
                "def f(x): return repr(M(v=str(x) if M.model_fields['v'].annotation is str else x).v)"
            )
        },
        ("written", "v: int", "v: str"),
    ),
    "a field's limit that a model checks by": (
        {
            "written": (
                "import pydantic\nclass M(pydantic.BaseModel):\n    v: int = pydantic.Field(ge=0)\n"
                "def f(x):\n    try:\n        return M(v=x).v\n    except ValueError:\n        return 'refused'"
            )
        },
        ("written", "ge=0", "ge=5"),
    ),
    "a validator of a model": (
        {
            "written": (
                "import pydantic\nclass M(pydantic.BaseModel):\n    v: int\n"
                "    @pydantic.field_validator('v')\n    @classmethod\n    def more(cls, v): return v + 1\n"
                "def f(x): return M(v=x).v"
            )
        },
        ("written", "v + 1", "v + 2"),
    ),
    "a field's default": (
        {
            "written": (
                "import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: int = 1\n"
                "def f(x): return C().a + x"
            )
        },
        ("written", "int = 1", "int = 2"),
    ),
    "the order of fields": (
        {
            "written": (
                "import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: int\n    b: int\n"
                "def f(x): return C(x, 2).a"
            )
        },
        ("written", "a: int\n    b: int", "b: int\n    a: int"),
    ),
    "a weight deep in a model": (
        {
            "written": (
                "class M:\n    def __init__(self):\n        self.layers = [[[[[[[[[[1.0]]]]]]]]]]\n"
                "def dig(v):\n    return dig(v[0]) if isinstance(v, list) else v\n"
                "m = M()\ndef f(x): return dig(m.layers) * x"
            )
        },
        ("written", "[1.0]", "[2.0]"),
    ),
    "the instance behind a bound method": (
        {
            "written": "class M:\n    def __init__(s, w): s._w = w\n    def p(s, x): return x * s._w\nf = M(2).p"
        },
        ("written", "M(2)", "M(3)"),
    ),
    "an argument of a partial": (
        {"written": "from functools import partial\ndef g(x, k): return x + k\nf = partial(g, k=1)"},
        ("written", "k=1", "k=2"),
    ),
    "the code below a partial": (
        {"written": "from functools import partial\ndef g(x, k): return x + k + 1\nf = partial(g, k=1)"},
        ("written", "k + 1", "k + 2"),
    ),
    "a closure over a function": (
        {
            "written": "def g(x): return x + 1\ndef make(h):\n    def f(x): return h(x)\n    return f\nf = make(g)"
        },
        ("written", "x + 1", "x + 2"),
    ),
    "a coroutine function's helper": (
        {"written": "def g(x): return x + 1\nasync def f(x): return g(x)"},
        ("written", "x + 1", "x + 2"),
    ),
    "what a generator yields": (
        {"written": "def f(x):\n    yield x\n    yield 1"},
        ("written", "yield 1", "yield 2"),
    ),
    "a case of a match": (
        {"written": "def f(x):\n    match x:\n        case 1: return 'a'\n        case _: return 'b'"},
        ("written", "'a'", "'c'"),
    ),
    "an exception that is caught": (
        {"written": "E = ZeroDivisionError\ndef f(x):\n    try: return x / 0\n    except E: return 'a'"},
        ("written", "'a'", "'b'"),
    ),
    "a star import": (
        {"written": "from aid import *\ndef f(x): return help(x)", "aid": "def help(x): return x + 1"},
        ("aid", "x + 1", "x + 2"),
    ),
    "an operator of a class": (
        {"written": "class V:\n    def __add__(s, x): return x + 1\nv = V()\ndef f(x): return v + x"},
        ("written", "x + 1", "x + 2"),
    ),
    "a class made by a function": (
        {
            "written": (
                "def make(k):\n    class C:\n        def m(self, x): return x + k\n    return C\n"
                "C = make(1)\ndef f(x): return C().m(x)"
            )
        },
        ("written", "make(1)", "make(2)"),
    ),
    "a class attribute read through type(self)": (
        {"written": "class A:\n    k=1\n    def g(self): return type(self).k\ndef f(x): return A().g()"},
        ("written", "k=1", "k=2"),
    ),
    "a method of a base class called through super": (
        {
            "written": "class B:\n    def g(self): return 1\nclass A(B):\n    def g(self): return super().g()\ndef f(x): return A().g()"
        },
        ("written", "return 1", "return 2"),
    ),
    "the default of a keyword": ({"written": "def f(x,*,k=1): return k"}, ("written", "k=1", "k=2")),
    "a lambda in a table": (
        {"written": "D={'a':lambda v:v+1}\ndef f(x): return D['a'](x)"},
        ("written", "v+1", "v+2"),
    ),
    "a generator that is called": (
        {"written": "def g():\n    yield 1\ndef f(x): return list(g())"},
        ("written", "yield 1", "yield 2"),
    ),
    "a coroutine function that is run": (
        {"written": "import asyncio\nasync def g(): return 1\ndef f(x): return asyncio.run(g())"},
        ("written", "return 1", "return 2"),
    ),
    "a context manager": (
        {
            "written": "import contextlib\n@contextlib.contextmanager\ndef c():\n    yield 1\ndef f(x):\n    with c() as v: return v"
        },
        ("written", "yield 1", "yield 2"),
    ),
    "the default of a named tuple's field": (
        {
            "written": "from typing import NamedTuple\nclass P(NamedTuple):\n    a:int=1\ndef f(x): return P().a"
        },
        ("written", "int=1", "int=2"),
    ),
    "a set that is global": (
        {"written": "S=frozenset({1})\ndef f(x): return x in S"},
        ("written", "{1}", "{2}"),
    ),
    "a pattern that is global": (
        {"written": "import re\nR=re.compile('a')\ndef f(x): return bool(R.match('a'))"},
        ("written", "'a')\ndef", "'b')\ndef"),
    ),
    "an argument of a partial method": (
        {
            "written": "import functools\nclass A:\n    def g(self,k): return k\n    h=functools.partialmethod(g,1)\ndef f(x): return A().h()"
        },
        ("written", "g,1", "g,2"),
    ),
    "what answers for missing attributes": (
        {"written": "class A:\n    def __getattr__(self,n): return 1\ndef f(x): return A().anything"},
        ("written", "return 1", "return 2"),
    ),
    "what a base class does to its subclasses": (
        {
            "written": "class B:\n    def __init_subclass__(cls): cls.k=1\nclass A(B): pass\ndef f(x): return A.k"
        },
        ("written", "k=1", "k=2"),
    ),
    "a decorator of a class": (
        {"written": "def d(c):\n    c.k=1\n    return c\n@d\nclass A: pass\ndef f(x): return A.k"},
        ("written", "k=1", "k=2"),
    ),
    "a global in a formatted text": (
        {"written": "K=1\ndef f(x): return f'{K:03d}'"},
        ("written", "K=1", "K=2"),
    ),
    "an assignment within a condition": (
        {"written": "def f(x):\n    if (v:=x+1): return v"},
        ("written", "x+1", "x+2"),
    ),
    "what is returned before a finally": (
        {"written": "def f(x):\n    try: return 1\n    finally: x=2\n"},
        ("written", "return 1", "return 3"),
    ),
    "the default of a function within": (
        {"written": "def f(x):\n    def g(v=1): return v\n    return g()"},
        ("written", "v=1", "v=2"),
    ),
    "private state of an object in an object": (
        {
            "written": "class A:\n    def __init__(s): s.p=B()\nclass B:\n    def __init__(s): s._w=1\nA1=A()\ndef f(x): return A1.p._w"
        },
        ("written", "_w=1", "_w=2"),
    ),
    "what a dictionary gives for missing keys": (
        {"written": "class D(dict):\n    def __missing__(s,k): return 1\nd=D()\ndef f(x): return d['q']"},
        ("written", "return 1", "return 2"),
    ),
    "a slot of a global object": (
        {
            "written": "class A:\n    __slots__=('w',)\n    def __init__(s): s.w=1\na=A()\ndef f(x): return a.w"
        },
        ("written", "w=1", "w=2"),
    ),
    "a flag in a combination of flags": (
        {
            "written": "import enum\nclass E(enum.IntFlag):\n    A=1\n    B=2\nM=E.A|E.B\ndef f(x): return int(M)"
        },
        ("written", "B=2", "B=4"),
    ),
    "the item that an itemgetter gets": (
        {"written": "import operator\nG=operator.itemgetter(0)\ndef f(x): return G([1,2])"},
        ("written", "(0)", "(1)"),
    ),
    "a function that was composed of others": (
        {
            "written": "def a(x): return x+1\ndef comp(*fs):\n    def g(x):\n        for h in fs: x=h(x)\n        return x\n    return g\nC=comp(a,a)\ndef f(x): return C(x)"
        },
        ("written", "x+1", "x+2"),
    ),
    "a value in a namespace": (
        {"written": "import types\nN=types.SimpleNamespace(a=1)\ndef f(x): return N.a"},
        ("written", "a=1", "a=2"),
    ),
    "a value in a chain of maps": (
        {"written": "import collections\nN=collections.ChainMap({'a':1})\ndef f(x): return N['a']"},
        ("written", "'a':1", "'a':2"),
    ),
    "a value behind a mapping proxy": (
        {"written": "import types\nN=types.MappingProxyType({'a':1})\ndef f(x): return N['a']"},
        ("written", "'a':1", "'a':2"),
    ),
    "a value in a deque": (
        {"written": "import collections\nN=collections.deque([1])\ndef f(x): return N[0]"},
        ("written", "[1]", "[2]"),
    ),
    "a path that is global": (
        {"written": "import pathlib\nP=pathlib.Path('a')\ndef f(x): return str(P)"},
        ("written", "'a'", "'b'"),
    ),
    "a comparison from which others follow": (
        {
            "written": "import functools\n@functools.total_ordering\nclass A:\n    def __lt__(s,o): return True\n    def __eq__(s,o): return False\ndef f(x): return A()<A()"
        },
        ("written", "return True", "return False"),
    ),
    "an attribute set on a function": (
        {"written": "def g(x): return x * g.rate\ng.rate = 2\ndef f(x): return g(x)"},
        ("written", "g.rate = 2", "g.rate = 3"),
    ),
    "what a field of a dataclass carries": (
        {
            "written": 'import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: int = dataclasses.field(default=1, metadata={"scale": 2})\ndef f(x): return [field.metadata["scale"] for field in dataclasses.fields(C)]'
        },
        ("written", '"scale": 2', '"scale": 3'),
    ),
    "the attributes that a class pattern matches": (
        {
            "written": "class P:\n    __match_args__ = ('a', 'b')\n    a, b = 1, 2\ndef f(x):\n    match P():\n        case P(v, _): return v"
        },
        ("written", "('a', 'b')", "('b', 'a')"),
    ),
    "the parameter of a generic base": (
        {
            "written": "import typing\nT = typing.TypeVar('T')\nclass A(typing.Generic[T]):\n    def read(self, x): return typing.get_args(type(self).__orig_bases__[0])[0](x)\nclass B(A[int]): pass\ndef f(x): return B().read(x)"
        },
        ("written", "A[int]", "A[str]"),
    ),
    "the type below a new type": (
        {"written": "import typing\nN = typing.NewType('N', int)\ndef f(x): return N.__supertype__(x + 0.5)"},
        ("written", "int)", "float)"),
    ),
    "a docstring that is read": (
        {"written": "def g(x):\n    'one'\ndef f(x): return g.__doc__"},
        ("written", "'one'", "'two'"),
    ),
    "a docstring that is read by inspect": (
        {"written": "import inspect\nclass C:\n    'one'\ndef f(x): return inspect.getdoc(C)"},
        ("written", "'one'", "'two'"),
    ),
    "a docstring in the schema of a model": (
        {
            "written": "import pydantic\nclass M(pydantic.BaseModel):\n    'one'\n    v: int = 1\ndef f(x): return M.model_json_schema()['description']"
        },
        ("written", "'one'", "'two'"),
    ),
    "the name of a function in a table": (
        {"written": "def g(x): return x\nT = [g]\ndef f(x): return T[0].__name__"},
        ("written", "def g(x): return x\nT = [g]", "def h(x): return x\nT = [h]"),
    ),
    "type hints that are read": (
        {
            "written": "import typing\ndef g(x: int): return x\ndef f(x): return typing.get_type_hints(g)['x'](x)"
        },
        ("written", "x: int", "x: str"),
    ),
    "type hints by which a decorator converts": (
        {
            "written": "import functools, inspect\ndef convert(g):\n    @functools.wraps(g)\n    def call(x):\n        return g(inspect.signature(g).parameters['x'].annotation(x))\n    return call\n@convert\ndef g(x: int): return x\ndef f(x): return g(x)"
        },
        ("written", "x: int", "x: str"),
    ),
    "a class that has registered itself with its base": (
        {
            "written": "class Base:\n    known = {}\n    def __init_subclass__(cls): Base.known[cls.__name__] = cls\nclass A(Base):\n    def run(self, x): return x + 1\ndef f(x): return Base.known['A']().run(x)"
        },
        ("written", "x + 1", "x + 2"),
    ),
    "a class that has registered itself in a table": (
        {
            "written": "KNOWN = {}\nclass Base:\n    def __init_subclass__(cls): KNOWN[cls.__name__] = cls\nclass A(Base):\n    def run(self, x): return x + 1\ndef f(x): return KNOWN['A']().run(x) if issubclass(KNOWN['A'], Base) else None"
        },
        ("written", "x + 1", "x + 2"),
    ),
    "a class that its metaclass has registered": (
        {
            "written": "class Meta(type):\n    known = {}\n    def __new__(meta, name, bases, names):\n        Meta.known[name] = made = super().__new__(meta, name, bases, names)\n        return made\nclass A(metaclass=Meta):\n    def run(self, x): return x + 1\ndef f(x): return Meta.known['A']().run(x)"
        },
        ("written", "x + 1", "x + 2"),
    ),
    "a class that is found among the subclasses of another": (
        {
            "written": "class Base: pass\nclass A(Base):\n    def run(self, x): return x + 1\ndef f(x): return [kind().run(x) for kind in Base.__subclasses__()][-1]"
        },
        ("written", "x + 1", "x + 2"),
    ),
    "a module in a table": (
        {
            "written": "import aid\nT = {'a': aid}\ndef f(x): return T['a'].help(x)",
            "aid": "def help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a module in a closure": (
        {
            "written": "import aid\ndef make(module):\n    def f(x): return module._help(x)\n    return f\nf = make(aid)",
            "aid": "def _help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a module that is a default": (
        {
            "written": "import aid\ndef f(x, module=aid): return module.help(x)",
            "aid": "def help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a module that an object holds": (
        {
            "written": "import aid\nclass A:\n    def __init__(self): self._module = aid\na = A()\ndef f(x): return a._module.help(x)",
            "aid": "def help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
    "a module in a partial": (
        {
            "written": "import aid, functools\ndef g(module, x): return module.help(x)\nf = functools.partial(g, aid)",
            "aid": "def help(x): return x + 1",
        },
        ("aid", "x + 1", "x + 2"),
    ),
}

# Everything public in a module that is passed on may be used, so that it counts.
PASSED_WHOLE = {
    "a module that is passed on",
    "a module that is passed on, of which something else is mentioned",
    "a module imported within the function and passed on",
    "a module imported within the function and used in a function within",
    "a module kept in a variable",
    "a module asked for an attribute by its name",
    "a module in a table",
    "a module that is a default",
    "a module that an object holds",
    "a module in a closure",
    "a module in a partial",
}


class Written:
    """Modules of a user, imported again each time."""

    def __init__(self, directory, sources, monkeypatch):
        self.directory, self.sources = directory, dict(sources)
        monkeypatch.syspath_prepend(str(directory))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def change(self, module, old, new):
        assert old in self.sources[module]
        self.sources[module] = self.sources[module].replace(old, new)

    def function(self):
        for name in self.sources:
            sys.modules.pop(name.replace("/", ".").removesuffix(".__init__"), None)
        for name, source in self.sources.items():
            file = self.directory / f"{name}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(source)
        importlib.invalidate_caches()
        return getattr(importlib.import_module("written"), "f", None)

    def run(self, cache):
        """Return the result and whether it was computed."""
        function = self.function()
        before = len(cache) if cache is not None else 0
        result = Pipeline([node(function, output_name="y")], cache=cache).run({"x": 1})["y"]
        return result, cache is not None and len(cache) > before


@pytest.fixture
def written(tmp_path, monkeypatch):
    made = []

    def write(sources):
        made.append(Written(tmp_path, sources, monkeypatch))
        return made[-1]

    yield write
    for one in made:
        for name in one.sources:
            sys.modules.pop(name.replace("/", ".").removesuffix(".__init__"), None)


@pytest.mark.parametrize("trap", TRAPS)
def test_no_old_result_comes_back_after_a_change_of(trap, written, tmp_path):
    sources, change = TRAPS[trap]
    code = written(sources)
    with DiskCache(tmp_path / "cache") as cache:
        before, computed = code.run(cache)
        assert computed
        code.change(*change)
        after, computed = code.run(cache)
        assert computed
        assert (after, False) == code.run(None)
        assert after != before


@pytest.mark.parametrize("trap", TRAPS)
def test_the_result_does_come_back_after_a_harmless_change_beside(trap, written, tmp_path):
    sources, change = TRAPS[trap]
    code = written(sources)
    with DiskCache(tmp_path / "cache") as cache:
        before, _ = code.run(cache)
        module = change[0]
        more = "" if trap in PASSED_WHOLE else "UNUSED = 1\n\n\ndef unused(): pass\n"
        code.sources[module] = f"# a comment\n\n{code.sources[module]}\n\n\n{more}"
        assert code.run(cache) == (before, False)
        code.sources[module] = sources[module]
        assert code.run(cache) == (before, False)


PLAIN = """
K = 1
def made(c):
    def inner(x): return x + c
    return inner
inner = made(1)
def helper(x, k=2, *, j=3): return inner(x) + k + j
def f(x): return helper(abs(x)) + K
"""
REPLACED = {
    "a global": lambda module: setattr(module, "K", 5),
    "a global by another of another type": lambda module: setattr(module, "K", 1.0),
    "a global that hides a builtin": lambda module: setattr(module, "abs", lambda x: x + 7),
    "a helper": lambda module: setattr(module, "helper", lambda x: 0),
    "a helper by an object": lambda module: setattr(module, "helper", Squared()),
    "the code of a helper": lambda module: setattr(
        module.helper, "__code__", (lambda x, k=2, *, j=3: 0).__code__
    ),
    "the defaults of a helper": lambda module: setattr(module.helper, "__defaults__", (5,)),
    "the keyword defaults of a helper": lambda module: module.helper.__kwdefaults__.update(j=5),
    "a closure value": lambda module: setattr(module.inner.__closure__[0], "cell_contents", 5),
}


class Squared:
    def __call__(self, x):
        return x * x + 50


@pytest.mark.parametrize("replaced", REPLACED)
def test_no_old_result_comes_back_within_a_process_after_replacing(replaced, written, tmp_path):
    function = written({"written": PLAIN}).function()
    pipeline = Pipeline([node(function, output_name="y")])
    with DiskCache(tmp_path / "cache") as cache:
        cached = pipeline.with_cache(cache)
        before = cached(x=1)
        assert (cached(x=1), len(cache)) == (before, 1)
        REPLACED[replaced](sys.modules["written"])
        after = cached(x=1)
        assert (cached(x=1), len(cache)) == (after, 2)
        assert repr(after) == repr(pipeline(x=1)) != repr(before)


ACROSS = """
import json, sys
from hypernodes import DiskCache, Pipeline, node
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import written
with DiskCache(sys.argv[2]) as cache:
    y = Pipeline([node(written.f, output_name="y")], cache=cache).run({"x": 1})["y"]
    print(json.dumps([y, len(cache)]))
"""


@pytest.mark.parametrize(
    "trap", ["a submodule imported within the function", "a validator of a model", "a table of functions"]
)
def test_another_process_with_other_hashes_hits_until_something_changes(trap, written, tmp_path):
    sources, change = TRAPS[trap]
    code = written(sources)

    def run(seed):
        code.function()
        done = subprocess.run(
            [sys.executable, "-c", ACROSS, str(tmp_path), str(tmp_path / "cache")],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        return json.loads(done.stdout)

    first = run("1")
    assert run("2") == first
    code.change(*change)
    second = run("3")
    assert second[0] != first[0]
    assert second[1] == 2


def test_an_effect_on_an_object_does_not_hide_its_class(written, tmp_path):
    source = """
        class Log(list):
            def append(self, x):
                super().append(x + 1)

        LOG = Log()

        def f(x):
            LOG.append(x)
            return len(LOG)
        """
    code = written({"written": textwrap.dedent(source)})
    with DiskCache(tmp_path / "cache") as cache:
        assert code.run(cache)[1]
        assert not code.run(cache)[1]
        code.change("written", "x + 1", "x + 2")
        assert code.run(cache)[1]


EFFECTS = {
    "an item": "N = {'n': 0}\ndef f(x):\n    N['n'] = 5\n    return x",
    "an item, added to": "N = {'n': 0}\ndef f(x):\n    N['n'] += 1\n    return x",
    "an attribute": "class C: n = 0\nN = C()\ndef f(x):\n    N.n = 5\n    return x",
    "an attribute, added to": "class C:\n    def __init__(self): self.n = 0\nN = C()\ndef f(x):\n    N.n += 1\n    return x",
    "an attribute of a function": "def g(): pass\ng.n = 0\ndef f(x):\n    g.n += 1\n    return x",
    "a global": "N = 0\ndef f(x):\n    global N\n    N += 1\n    return x",
    "a list": "N = []\ndef f(x):\n    N.append(x)\n    return x",
}


@pytest.mark.parametrize("effect", EFFECTS)
def test_what_the_code_itself_changes_is_no_input(effect, written, tmp_path):
    function = written({"written": EFFECTS[effect]}).function()
    with DiskCache(tmp_path / "cache") as cache:
        pipeline = Pipeline([node(function, output_name="y")], cache=cache)
        for _ in range(3):
            pipeline.run({"x": 1})
        assert len(cache) == 1


def test_a_module_that_is_not_there_is_no_obstacle(written, tmp_path):
    source = "def f(x):\n    try:\n        import not_there_at_all as n\n    except ImportError:\n        return x\n"
    with DiskCache(tmp_path / "cache") as cache:
        code = written({"written": source})
        assert code.run(cache) == (1, True)
        assert code.run(cache) == (1, False)


def test_a_redefined_function_of_a_notebook_cell_is_computed_anew(tmp_path):
    scope = {"__name__": "__main__"}

    def run(cell, cache):
        exec(cell, scope)
        before = len(cache)
        y = Pipeline([node(scope["f"], output_name="y")], cache=cache).run({"x": 1})["y"]
        return y, len(cache) > before

    with DiskCache(tmp_path / "cache") as cache:
        assert run("def g(x): return x + 1\ndef f(x): return g(x)", cache) == (2, True)
        assert run("def g(x): return x + 2", cache) == (3, True)
        assert run("def g(x):\n    # as it was\n    return x + 1", cache) == (2, False)


# ------------------------------------------------------------------- inputs that only the user knows


def counted(function, cache, **inputs):
    """Run a node, and return its result and whether it was computed."""
    before = len(cache)
    result = Pipeline([function], cache=cache).run(inputs)
    return result[function.output_names[0]], len(cache) > before


def test_another_cache_version_is_computed_anew(tmp_path):
    def asked(x):
        return x

    with DiskCache(tmp_path / "cache") as cache:
        assert counted(node(asked, output_name="y"), cache, x=1)[1]
        assert counted(node(asked, output_name="y", cache_version=1), cache, x=1)[1]
        assert counted(node(asked, output_name="y", cache_version="1"), cache, x=1)[1]
        assert not counted(node(asked, output_name="z", cache_version=1), cache, x=1)[1]


def test_a_cache_version_stands_for_code_that_cannot_be_fingerprinted(tmp_path):
    numbers = (number for number in range(9))

    def draw(x):
        return x + next(numbers)

    with DiskCache(tmp_path / "cache") as cache:
        assert counted(node(draw, output_name="y", cache_version=1), cache, x=1) == (1, True)
        assert counted(node(draw, output_name="y", cache_version=1), cache, x=1) == (1, False)
        assert counted(node(draw, output_name="y", cache_version=2), cache, x=1) == (2, True)


def test_a_cache_version_that_is_no_version_is_refused():
    with pytest.raises(ValueError, match="cache_version is a text or a number"):
        node(lambda f: f, output_name="y", cache_version=[1])
    named = node(len, output_name="y", cache_version=3).rename(outputs={"y": "z"})
    assert named.cache_version == 3


@node(output_name="text")
def read(file):
    with open(file) as opened:
        return opened.read()


def test_a_file_counts_by_its_content(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("a")
    with DiskCache(tmp_path / "cache") as cache:
        assert counted(read, cache, file=File(one)) == ("a", True)
        assert counted(read, cache, file=File(one)) == ("a", False)
        two.write_text("a")
        assert counted(read, cache, file=File(two)) == ("a", False)
        two.write_text("b")  # The content changes at once, and has the same length.
        assert counted(read, cache, file=File(two)) == ("b", True)
        os.utime(one)
        assert counted(read, cache, file=File(one)) == ("a", False)
        assert counted(read, cache, file=[File(one)][0]) == ("a", False)


def test_a_file_that_has_not_changed_is_not_read_again(tmp_path, monkeypatch):
    path = tmp_path / "one.txt"
    path.write_text("a")
    monkeypatch.setattr("hypernodes.cache.file._TIMESTAMP_RESOLUTION_S", -1)
    with DiskCache(tmp_path / "cache") as cache:
        counted(read, cache, file=File(path))
        first = digest(File(path))
        opened = []
        monkeypatch.setattr("hypernodes.cache.file.blake2b", lambda **_: opened.append(1))
        assert digest(File(path)) == first
        assert opened == []


def test_a_file_that_is_not_there_is_the_nodes_own_error(tmp_path):
    with DiskCache(tmp_path / "cache") as cache, pytest.warns(CacheWarning, match="cannot be read"):
        with pytest.raises(FileNotFoundError):
            counted(read, cache, file=File(tmp_path / "none"))
        assert len(cache) == 0


def test_a_file_travels_as_its_path(tmp_path):
    file = pickle.loads(pickle.dumps(File(tmp_path / "a")))
    assert file == File(tmp_path / "a")
    assert os.fspath(file) == str(tmp_path / "a")
    with pytest.raises(AttributeError):
        file.path = "b"


# ------------------------------------------------------------------------- private state of objects

# A module with the node ``f(thing)``, and a function ``make(v)`` that makes its input. Inputs made with different
# values have different results, so that they must have different signatures.
PRIVATE = {
    "rows that a constructor is given": """
        class Table:
            def __init__(self, name, rows): self.name, self._rows = name, rows
            def total(self): return sum(self._rows)
        def make(v): return Table("t", [v])
        def f(thing): return thing.total()
        """,
    "rows that were added before": """
        class Table:
            def __init__(self): self.name, self._rows = "t", []
            def add(self, row): self._rows.append(row)
            def total(self): return sum(self._rows)
        def make(v):
            t = Table()
            t.add(v)
            return t
        def f(thing): return thing.total()
        """,
    "rows to which the node adds": """
        class Table:
            def __init__(self): self.name, self._rows = "t", []
            def add(self, row): self._rows.append(row)
            def total(self): return sum(self._rows)
        def make(v):
            t = Table()
            t.add(v)
            return t
        def f(thing):
            thing.add(1)
            return thing.total()
        """,
    "rows to which the node adds, read by a helper": """
        class Table:
            def __init__(self): self.name, self._rows = "t", []
            def add(self, row): self._rows.append(row)
            def total(self): return added(self)
        def added(table): return sum(table._rows)
        def make(v):
            t = Table()
            t.add(v)
            return t
        def f(thing):
            thing.add(1)
            return thing.total()
        """,
    "rows to which the node adds, read by another class": """
        class Table:
            def __init__(self): self.name, self._rows = "t", []
            def add(self, row): self._rows.append(row)
        class View:
            def __init__(self, table): self.table = table
            def add(self, row): self.table.add(row)
            def total(self): return sum(self.table._rows)
        def make(v):
            t = Table()
            t.add(v)
            return View(t)
        def f(thing):
            thing.add(1)
            return thing.total()
        """,
    "rows to which the node adds, read by another input": """
        class Table:
            def __init__(self): self.name, self._rows = "t", []
            def add(self, row): self._rows.append(row)
        class View:
            def total(self, table): return sum(table._rows)
        def make(v):
            t = Table()
            t.add(v)
            return {"table": t, "view": View()}
        def f(thing):
            thing["table"].add(1)
            return thing["view"].total(thing["table"])
        """,
    "a link that the node sets": """
        class Link:
            def __init__(self, value): self.value, self._next = value, None
            def link(self, other): self._next = other
        def values(link):
            while link is not None:
                yield link.value
                link = link._next
        def make(v):
            link = Link(1)
            link.link(Link(v))
            return link
        def f(thing):
            first = list(values(thing))
            thing.link(None)
            return first
        """,
    "what was fitted": """
        class Model:
            def __init__(self): self.name, self._mean = "m", None
            def fit(self, data): self._mean = sum(data) / len(data); return self
            def predict(self, x): return x - self._mean
        def make(v): return Model().fit([v])
        def f(thing): return thing.predict(10)
        """,
    "what was made on first use, and trained then": """
        class Inner:
            def fit(self, k): self.k = k
            def predict(self, x): return x * self.k
        class Model:
            def __init__(self): self.name, self._inner = "m", None
            def _ensure(self):
                if self._inner is None: self._inner = Inner()
            def train(self, k):
                self._ensure()
                self._inner.fit(k)
            def predict(self, x):
                self._ensure()
                return self._inner.predict(x)
        def make(v):
            m = Model()
            m.train(v)
            return m
        def f(thing): return thing.predict(10)
        """,
    "what was made on first use, and trained then under another name": """
        class Inner:
            def swallow(self, k): self.k = k
            def predict(self, x): return x * self.k
        class Model:
            def __init__(self): self.name, self._inner = "m", None
            def _ensure(self):
                if self._inner is None: self._inner = Inner()
            def train(self, k):
                self._ensure()
                inner = self._inner
                inner.swallow(k)
            def predict(self, x):
                self._ensure()
                return self._inner.predict(x)
        def make(v):
            m = Model()
            m.train(v)
            return m
        def f(thing): return thing.predict(10)
        """,
    "rows that are made on first use": """
        class Table:
            def __init__(self): self.name, self._rows = "t", None
            def add(self, row):
                if self._rows is None: self._rows = [0]
                self._rows.append(row)
            def total(self):
                if self._rows is None: self._rows = [0]
                return sum(self._rows)
        def make(v):
            t = Table()
            t.add(v)
            return t
        def f(thing):
            thing.add(1)
            return thing.total()
        """,
    "a setting of what is made on first use": """
        class Inner: k = 1
        class Model:
            def __init__(self): self.name, self._inner = "m", None
            def _ensure(self):
                if self._inner is None: self._inner = Inner()
            def set(self, k):
                self._ensure()
                self._inner.k = k
            def predict(self, x):
                self._ensure()
                return x * self._inner.k
        def make(v):
            m = Model()
            m.set(v)
            return m
        def f(thing):
            if thing.name == "other": thing.set(1)
            return thing.predict(10)
        """,
    "what was fitted, with a lazy default": """
        class Model:
            def __init__(self): self.name, self._mean = "m", None
            def fit(self, data): self._mean = sum(data) / len(data); return self
            def predict(self, x):
                if self._mean is None: self._mean = 0
                return x - self._mean
        def make(v): return Model().fit([v])
        def f(thing): return thing.predict(10)
        """,
    "what is loaded, unless the constructor is given it": """
        class Model:
            def __init__(self, weights=None): self.name, self._weights = "m", weights
            def predict(self, x):
                if self._weights is None: self._weights = [1]
                return x * self._weights[0]
        def make(v): return Model([v])
        def f(thing): return thing.predict(10)
        """,
    "what is loaded, by an argument": """
        class Client:
            def __init__(self): self.name, self._url = "c", None
            def connect(self, url):
                if self._url is None: self._url = url
            def get(self): return self._url
        def make(v):
            c = Client()
            c.connect(v)
            return c
        def f(thing):
            thing.connect(1)
            return thing.get()
        """,
    "what is loaded, now and then anew": """
        class Model:
            def __init__(self): self.name, self._k = "m", None
            def predict(self, x, k=None):
                if self._k is None or k: self._k = k
                return x * self._k
        def make(v):
            m = Model()
            m.predict(1, v)
            return m
        def f(thing): return thing.predict(10)
        """,
    "functions that were registered": """
        class Registry:
            def __init__(self): self.name, self._known = "r", {}
            def register(self, name, value):
                if name not in self._known: self._known[name] = value
            def get(self, name): return self._known[name]
        def make(v):
            r = Registry()
            r.register("a", v)
            return r
        def f(thing):
            thing.register("b", 5)
            return thing.get("a")
        """,
    "numbers by name that go on": """
        class Numbers:
            def __init__(self): self.name, self._next = "n", {}
            def draw(self, name):
                number = self._next.get(name, 0) + 1
                self._next[name] = number
                return number
        def make(v):
            n = Numbers()
            for _ in range(v): n.draw("a")
            return n
        def f(thing): return thing.draw("a")
        """,
    "a counter that the node reads": """
        class Counter:
            def __init__(self): self.name, self._n = "c", 0
            def count(self): self._n += 1
        def make(v):
            c = Counter()
            for _ in range(v): c.count()
            return c
        def f(thing):
            thing.count()
            return thing._n
        """,
    "a counter that the method reads": """
        class Counter:
            def __init__(self): self.name, self._n = "c", 0
            def count(self):
                self._n += 1
                return self._n
        def make(v):
            c = Counter()
            for _ in range(v): c.count()
            return c
        def f(thing): return thing.count()
        """,
    "a counter that a property reads": """
        class Counter:
            def __init__(self): self.name, self._n = "c", 0
            def count(self): self._n += 1
            n = property(lambda self: self._n)
        def make(v):
            c = Counter()
            for _ in range(v): c.count()
            return c
        def f(thing):
            thing.count()
            return thing.n
        """,
    "a counter that is asked for by a made-up name": """
        class Counter:
            def __init__(self): self.name, self._n = "c", 0
            def count(self): self._n += 1
            def get(self, what): return getattr(self, "_" + what)
        def make(v):
            c = Counter()
            for _ in range(v): c.count()
            return c
        def f(thing):
            thing.count()
            return thing.get("n")
        """,
    "a counter in a text": """
        class Counter:
            def __init__(self): self.name, self._n = "c", 0
            def count(self): self._n += 1
            def __repr__(self): return f"counted {self._n}"
        def make(v):
            c = Counter()
            for _ in range(v): c.count()
            return c
        def f(thing):
            thing.count()
            return str(thing)
        """,
    "a model whose update is no change of a container": """
        class Inner:
            def __init__(self, k): self.k = k
            def update(self, x): return x * self.k
        class Model:
            def __init__(self, inner): self.name, self._inner = "m", inner
            def predict(self, x): return self._inner.update(x)
        def make(v): return Model(Inner(v))
        def f(thing): return thing.predict(10)
        """,
    "a mangled attribute": """
        class Table:
            def __init__(self, rows): self.name, self.__rows = "t", rows
            def total(self): return sum(self.__rows)
        def make(v): return Table([v])
        def f(thing): return thing.total()
        """,
    "a private slot": """
        class Table:
            __slots__ = ("name", "_rows")
            def __init__(self, rows): self.name, self._rows = "t", rows
        class More(Table):
            __slots__ = ("more",)
        def make(v): return More([v])
        def f(thing): return sum(thing._rows)
        """,
    "a slot that a subclass hides by a property": """
        class Thing:
            __slots__ = ("_size",)
            def __init__(self, size): Thing._size.__set__(self, size)
            def get(self): return Thing._size.__get__(self)
        class More(Thing):
            __slots__ = ()
            _size = property(lambda self: 0)
        def make(v): return More(v)
        def f(thing): return thing.get()
        """,
    "a slot that a subclass hides by a slot": """
        class Thing:
            __slots__ = ("_size",)
            def get(self): return Thing._size.__get__(self)
        class More(Thing):
            __slots__ = ("_size",)
        def make(v):
            thing = More()
            thing._size = 1
            Thing._size.__set__(thing, v)
            return thing
        def f(thing): return thing.get()
        """,
    "a slot whose name came from an iterator": """
        class Thing:
            __slots__ = iter(["_size"])
            def __init__(self, size): self._size = size
        def make(v): return Thing(v)
        def f(thing): return thing._size
        """,
    "what a descriptor keeps": """
        class Positive:
            def __set_name__(self, owner, name): self.place = "_" + name
            def __get__(self, thing, owner=None): return getattr(thing, self.place)
            def __set__(self, thing, value): setattr(thing, self.place, abs(value))
        class Thing:
            size = Positive()
            def __init__(self, size): self.name, self.size = "t", size
        def make(v): return Thing(v)
        def f(thing): return thing.size
        """,
    "what a property keeps": """
        class Thing:
            def __init__(self, size): self.name, self.size = "t", size
            @property
            def size(self): return self._size
            @size.setter
            def size(self, value): self._size = value
        def make(v): return Thing(v)
        def f(thing): return thing.size
        """,
    "a private field of a dataclass": """
        import dataclasses
        @dataclasses.dataclass
        class Thing:
            name: str
            _size: int = dataclasses.field(default=0, init=False, repr=False, compare=False)
            def resize(self, size): self._size = size
            def get(self): return self._size
        def make(v):
            t = Thing("t")
            t.resize(v)
            return t
        def f(thing): return thing.get()
        """,
    "a private attribute of a model": """
        import pydantic
        class Thing(pydantic.BaseModel):
            name: str = "t"
            _size: int = pydantic.PrivateAttr(0)
            def get(self): return self._size
        def make(v):
            t = Thing()
            t._size = v
            return t
        def f(thing): return thing.get()
        """,
    "a class that derives from a library's": """
        import networkx
        class Graph(networkx.Graph):
            def __init__(self, *args): super().__init__(*args); self.title = "g"
        def make(v): return Graph([(0, v)])
        def f(thing): return sorted(thing.nodes)
        """,
    "a class that derives from a list": """
        class Rows(list):
            def __init__(self, unit): self.name, self._unit = "r", unit
        def make(v): return Rows(v)
        def f(thing): return thing._unit
        """,
    "an object with a state of its own for pickling": """
        class Thing:
            def __init__(self, size): self.name, self._size = "t", size
            def __getstate__(self): return {"name": self.name}
        def make(v): return Thing(v)
        def f(thing): return thing._size
        """,
    "an object in containers": """
        class Table:
            def __init__(self, rows): self.name, self._rows = "t", rows
        def make(v): return {"a": [(Table([v]),)]}
        def f(thing): return thing["a"][0][0]._rows
        """,
    "a private object in an object": """
        class Inner:
            def __init__(self, size): self.name, self._size = "i", size
        class Outer:
            def __init__(self, size): self.name, self._inner = "o", Inner(size)
            def get(self): return self._inner._size
        def make(v): return Outer(v)
        def f(thing): return thing.get()
        """,
    "the object behind a bound method": """
        class Table:
            def __init__(self, rows): self.name, self._rows = "t", rows
            def total(self): return sum(self._rows)
        def make(v): return Table([v]).total
        def f(thing): return thing()
        """,
    "a callable object": """
        class Scale:
            def __init__(self, k): self.name, self._k = "s", k
            def __call__(self, x): return x * self._k
        def make(v): return Scale(v)
        def f(thing): return thing(10)
        """,
    "an object that a closure holds": """
        class Scale:
            def __init__(self, k): self.name, self._k = "s", k
        def make(v):
            scale = Scale(v)
            return lambda x: x * scale._k
        def f(thing): return thing(10)
        """,
}


def module_of(source, written):
    written({"written": textwrap.dedent(source)}).function()
    return sys.modules["written"]


def run_with(function, cache, **inputs):
    """Run a node, and return its result and whether it was computed."""
    return counted(node(function, output_name="y"), cache, **inputs)


@pytest.mark.parametrize("state", PRIVATE)
def test_private_state_of_an_input_counts(state, written, tmp_path):
    module = module_of(PRIVATE[state], written)
    with DiskCache(tmp_path / "cache") as cache:
        first, computed = run_with(module.f, cache, thing=module.make(2))
        assert computed
        assert run_with(module.f, cache, thing=module.make(2)) == (first, False)
        second, computed = run_with(module.f, cache, thing=module.make(3))
        assert computed
        assert second != first


@pytest.mark.filterwarnings("ignore:the next run will compute")
@pytest.mark.parametrize("state", PRIVATE)
def test_private_state_of_a_global_that_the_node_reads_counts(state, written, tmp_path):
    module = module_of(f"{PRIVATE[state]}\n        def g(x): return f(THING)\n", written)
    with DiskCache(tmp_path / "cache") as cache:
        results = []
        for value in (2, 2, 3):
            module.THING = module.make(value)
            results.append(run_with(module.g, cache, x=1))
        (first, _), again, (second, computed) = results
        assert again == (first, False)
        assert computed
        assert second != first


# Here ``f(thing)`` changes private state that no result depends on.
WORKING = {
    "a counter": """
        class Thing:
            def __init__(self): self.k, self._n = 2, 0
            def call(self, x):
                self._n += 1
                return x * self.k
        """,
    "a counter that is added to in full": """
        class Thing:
            def __init__(self): self.k, self._n = 2, 0
            def call(self, x):
                self._n = self._n + 1
                return x * self.k
        """,
    "a counter that others may read": """
        class Thing:
            def __init__(self): self.k, self._n = 2, 0
            def call(self, x):
                self._n += 1
                return x * self.k
            @property
            def calls(self): return self._n
            def reset(self): self._n = 0
        """,
    "a counter in a dictionary": """
        class Thing:
            def __init__(self): self.k, self._n = 2, {"calls": 0}
            def call(self, x):
                self._n["calls"] += 1
                return x * self.k
        """,
    "a counter in a slot": """
        class Thing:
            __slots__ = ("k", "_n")
            def __init__(self): self.k, self._n = 2, 0
            def call(self, x):
                self._n += 1
                return x * self.k
        """,
    "a mangled counter": """
        class Thing:
            def __init__(self): self.k, self.__n = 2, 0
            def call(self, x):
                self.__n += 1
                return x * self.k
        """,
    "a counter of a base class": """
        import abc
        class Base(abc.ABC):
            _n = 0
            def call(self, x):
                self._n += 1
                return self.work(x)
            @abc.abstractmethod
            def work(self, x): ...
        class Thing(Base):
            def __init__(self): self.k = 2
            def work(self, x): return x * self.k
        """,
    "a counter of a list": """
        class Thing(list):
            def __init__(self): self.k, self._n = 2, 0
            def call(self, x):
                self._n += 1
                return x * self.k
        """,
    "a counter that a decorator has": """
        import functools
        def counted(g):
            @functools.wraps(g)
            def call(self, x):
                self._n += 1
                return g(self, x)
            return call
        class Thing:
            def __init__(self): self.k, self._n = 2, 0
            @counted
            def call(self, x): return x * self.k
        """,
    "the time that it took": """
        import time
        class Thing:
            def __init__(self): self.k, self._seconds = 2, 0.0
            def call(self, x):
                before = time.perf_counter()
                self._seconds += time.perf_counter() - before
                return x * self.k
        """,
    "what is loaded on first use": """
        class Thing:
            def __init__(self): self.k, self._model = 2, None
            def call(self, x):
                if self._model is None: self._model = [self.k]
                return x * self._model[0]
        """,
    "what is loaded on first use, in a method of its own": """
        class Thing:
            _model = None
            def __init__(self): self.k = 2
            @property
            def model(self):
                if not self._model:
                    made = [self.k]
                    made.append(0)
                    self._model = made
                return self._model
            def call(self, x): return x * self.model[0]
        """,
    "what is loaded on first use, or returned": """
        class Thing:
            def __init__(self): self.k, self._model = 2, None
            def _load(self):
                if self._model is not None: return self._model
                self._model = [self.k]
                return self._model
            def call(self, x): return x * self._load()[0]
        """,
    "what is loaded on first use, under a lock": """
        import threading
        class Thing:
            def __init__(self): self.k, self._model, self._lock = 2, None, threading.Lock()
            def call(self, x):
                if self._model is None:
                    with self._lock:
                        if self._model is None: self._model = [k for k in range(self.k + 1)]
                return x * self._model[-1]
        """,
    "what is there after the first use": """
        class Thing:
            def __init__(self): self.k = 2
            def call(self, x):
                if not hasattr(self, "_model"): self._model = [self.k]
                return x * self._model[0]
        """,
    "what is missed on first use": """
        class Thing:
            def __init__(self): self.k = 2
            def call(self, x):
                try:
                    return x * self._model
                except AttributeError:
                    self._model = self.k
                return x * self._model
        """,
    "a cache": """
        class Thing:
            def __init__(self): self.k, self._cache = 2, {}
            def call(self, x):
                if x not in self._cache: self._cache[x] = x * self.k
                return self._cache[x]
        """,
    "a cache that is asked for an item": """
        class Thing:
            def __init__(self): self.k, self._cache = 2, dict()
            def call(self, x):
                found = self._cache.get(x)
                if found is None:
                    found = x * self.k
                    self._cache[x] = found
                return found
        """,
    "a cache that misses by an error": """
        class Thing:
            def __init__(self): self.k, self._cache = 2, {}
            def call(self, x):
                try:
                    return self._cache[x]
                except KeyError:
                    made = self._cache[x] = x * self.k
                    return made
        """,
    "a cache of limited size": """
        import collections
        class Thing:
            def __init__(self): self.k, self._cache = 2, collections.OrderedDict()
            def call(self, x, y=0):
                key = (x, y)
                if key in self._cache: return self._cache[key]
                made = x * self.k + y
                if len(self._cache) >= 2: self._cache.popitem(last=False)
                self._cache[key] = made
                return made
            def clear(self): self._cache.clear()
        """,
    "a cache in a dataclass": """
        import dataclasses
        @dataclasses.dataclass
        class Thing:
            k: int = 2
            _cache: dict = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)
            def call(self, x):
                if x not in self._cache: self._cache[x] = x * self.k
                return self._cache[x]
        """,
    "a cache in an object in an object": """
        class Inner:
            def __init__(self): self.k, self._cache = 2, {}
            def work(self, x):
                if x not in self._cache: self._cache[x] = x * self.k
                return self._cache[x]
        class Thing:
            def __init__(self): self.k, self._inner = 2, Inner()
            def call(self, x): return self._inner.work(x)
        """,
    "a property that is kept": """
        import functools
        class Thing:
            def __init__(self): self.k = 2
            @functools.cached_property
            def model(self): return [self.k]
            @functools.cached_property
            def _hidden(self): return [self.k]
            def call(self, x): return x * self.model[0] * self._hidden[0]
        """,
    "a property that is kept in a class that derives from a library's": """
        import functools, networkx
        class Thing(networkx.Graph):
            @functools.cached_property
            def model(self): return [2]
            def call(self, x): return x * self.model[0] * (1 + len(self.nodes) + len(self.adj))
        """,
    "a counter that the node itself adds to": """
        class Thing:
            def __init__(self): self.k, self._n = 2, 0
            def call(self, x): return x * self.k
        def f(thing):
            thing._n += 1
            return thing.call(10)
        """,
    "a counter that a helper adds to": """
        class Thing:
            def __init__(self): self.k, self._n = 2, 0
            def call(self, x): return x * self.k
        def note(thing): thing._n += 1
        def f(thing):
            note(thing)
            return thing.call(10)
        """,
    "a counter in a callable object": """
        class Thing:
            def __init__(self): self.k, self._n = 2, 0
            def __call__(self, x):
                self._n += 1
                return x * self.k
        def f(thing): return thing(10)
        """,
    "a counter of an object in a list": """
        class Thing:
            def __init__(self): self.k, self._n = 2, 0
            def call(self, x):
                self._n += 1
                return x * self.k
        def f(thing): return [one.call(10) for one in [thing]]
        """,
}


def working(source, written):
    module = module_of(f"def f(thing): return thing.call(10)\n{textwrap.dedent(source)}", written)
    return module, module.Thing()


@pytest.mark.parametrize("state", WORKING)
def test_private_state_that_the_code_itself_changes_is_no_input(state, written, tmp_path):
    module, thing = working(WORKING[state], written)
    with DiskCache(tmp_path / "cache") as cache:
        first, computed = run_with(module.f, cache, thing=thing)
        assert computed
        assert run_with(module.f, cache, thing=thing) == (first, False)
        module.f(thing)  # This increases a counter.
        assert run_with(module.f, cache, thing=thing) == (first, False)
        assert run_with(module.f, cache, thing=module.Thing()) == (first, False)
        thing.k = 3
        assert run_with(module.f, cache, thing=thing)[1]


@pytest.mark.parametrize("state", WORKING)
def test_private_state_that_the_code_itself_changes_in_a_global_is_no_input(state, written, tmp_path):
    module, thing = working(f"{WORKING[state]}\n        def g(x): return f(THING)\n", written)
    module.THING = thing
    with DiskCache(tmp_path / "cache") as cache:
        assert run_with(module.g, cache, x=1)[1]
        assert not run_with(module.g, cache, x=1)[1]


@pytest.mark.parametrize("state", WORKING)
def test_a_strict_pipeline_lets_code_change_its_private_state(state, written):
    module, thing = working(WORKING[state], written)
    pipeline = Pipeline([node(module.f, output_name="y")], strict=True)
    assert pipeline(thing=thing) == pipeline(thing=thing)


@pytest.mark.parametrize("method", ["call", "__call__"])
def test_a_node_may_be_a_method_that_counts_its_calls(method, tmp_path):
    class Thing:
        def __init__(self, k):
            self.k, self._n = k, 0

        def call(self, x):
            self._n += 1
            return x * self.k

        __call__ = call

    with DiskCache(tmp_path / "cache") as cache:
        for k, computed in ((2, True), (3, True)):
            thing = Thing(k)
            function = thing if method == "__call__" else thing.call
            assert run_with(function, cache, x=1) == (k, computed)
            assert run_with(function, cache, x=1) == (k, False)


def test_a_counter_counts_for_a_pipeline_that_does_not_count(tmp_path):
    class Thing:
        def __init__(self):
            self.k, self._n = 2, 0

        def count(self):
            self._n += 1

        def call(self):
            return self.k

    def f(thing):
        return thing.call()

    one, other = Thing(), Thing()
    other.count()
    with DiskCache(tmp_path / "cache") as cache:
        assert run_with(f, cache, thing=one)[1]
        assert run_with(f, cache, thing=other)[1]  # Its use cannot be seen, so that it counts.


class Session:
    """An object with private attributes without stable content."""

    def __init__(self, k):
        self.k = k
        self._numbers = (number for number in range(3))
        self._more = threading.local()

    def call(self, x):
        return x * self.k


def test_private_attributes_without_content_are_left_out_with_one_warning(tmp_path, monkeypatch):
    monkeypatch.setattr("hypernodes.execution.cache_warnings._warned_classes", set())

    @node(output_name="y")
    def called(session, x):
        return session.call(x)

    with DiskCache(tmp_path / "cache") as cache:
        pipeline = Pipeline([called], cache=cache)
        with pytest.warns(CacheWarning) as caught:
            for _ in range(2):
                pipeline.map({"session": [Session(1), Session(2)], "x": [1, 1]}, map_over=["session", "x"])
            Pipeline([called], cache=cache, name="other")(session=Session(1), x=1)
        (warning,) = caught
        for part in ("'Session'", "'_more' and '_numbers'", "generator", "__cache_key__"):
            assert part in str(warning.message)
        assert len(cache) == 2


def test_workers_do_not_warn_of_private_attributes_without_content(tmp_path, capfd):
    with DiskCache(tmp_path / "cache") as cache, HyperNodesEngine(map_executor="parallel") as engine:
        pipeline = Pipeline([node(made_in_a_worker, output_name="y")], cache=cache, engine=engine)
        assert pipeline.map({"x": [1, 2]}, map_over="x") == {"y": [2, 4]}
    assert "CacheWarning" not in capfd.readouterr().err


def made_in_a_worker(x):
    return Session(2).call(x)


def test_locks_and_loggers_in_private_attributes_are_not_inputs(tmp_path):
    class Thing:
        def __init__(self, k):
            self.k = k
            self._lock, self._logger = threading.Lock(), logging.getLogger(f"of {k}")

    with DiskCache(tmp_path / "cache") as cache:
        assert run_with(lambda thing: thing.k, cache, thing=Thing(1))[1]
        assert not run_with(lambda thing: thing.k, cache, thing=Thing(1))[1]


class Embedder:
    """A model with a cache of its results."""

    def __init__(self, k):
        self.k, self._calls, self._cache = k, 0, {}

    def embed(self, x):
        self._calls += 1
        if x not in self._cache:
            self._cache[x] = x * self.k
        return self._cache[x]


@node(output_name="embedded")
def embedded(embedder, x):
    return embedder.embed(x)


@pytest.mark.parametrize("executor", ["sequential", "async", "threaded", "parallel"])
def test_every_executor_finds_what_another_has_computed_with_an_object_that_changes(executor, tmp_path):
    used = Embedder(2)
    used.embed(7)
    embedders = [Embedder(2), used]
    with DiskCache(tmp_path / "cache") as cache:
        Pipeline([embedded], cache=cache)(embedder=Embedder(2), x=1)
        with HyperNodesEngine(map_executor=executor) as engine:
            pipeline = Pipeline([embedded], cache=cache, engine=engine, name="inner")
            pipeline.map({"embedder": embedders, "x": [1, 1]}, map_over=["embedder", "x"])
            nested = Pipeline([pipeline.as_node(map_over="embedder")], cache=cache, engine=engine)
            assert nested(embedder=embedders, x=1) == {"embedded": [2, 2]}
            assert len(cache) == 1
