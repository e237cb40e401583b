"""Modules of a user in which state changes, for `test_state`.

Each has a function ``make(v)``, which returns the function of a node and its inputs. In `EFFECTS` no result
depends on what the code changes. In `INPUTS` nodes made with different values have different results.
"""

EFFECTS = {
    "closure list": """
        def make(v):
          log=[]
          def f(x):
            log.append(x); return x*v
          return f, {'x':1}
        """,
    "nonlocal": """
        def make(v):
          n=0
          def f(x):
            nonlocal n
            n += 1
            return x*v
          return f, {'x':1}
        """,
    "closure dict item": """
        def make(v):
          c={'n':0}
          def f(x):
            c['n'] += 1
            return x*v
          return f, {'x':1}
        """,
    "closure namespace": """
        import types
        def make(v):
          c=types.SimpleNamespace(n=0)
          def f(x):
            c.n += 1
            return x*v
          return f, {'x':1}
        """,
    "closure object": """
        class S:
          def __init__(self): self.n=0
        def make(v):
          c=S()
          def f(x):
            c.n += 1
            return x*v
          return f, {'x':1}
        """,
    "closure dict of lists": """
        def make(v):
          c={'a':[]}
          def f(x):
            c['a'].append(x)
            return x*v
          return f, {'x':1}
        """,
    "closure defaultdict": """
        import collections
        def make(v):
          c=collections.defaultdict(list)
          def f(x):
            c[x].append(x)
            return x*v
          return f, {'x':1}
        """,
    "closure setdefault": """
        def make(v):
          c={}
          def f(x):
            c.setdefault(x, []).append(1)
            return x*v
          return f, {'x':1}
        """,
    "closure memo": """
        def make(v):
          c={}
          def f(x):
            if x not in c: c[x]=x*v
            return c[x]
          return f, {'x':1}
        """,
    "decorator counter": """
        import functools
        def counted(g):
          n = 0
          @functools.wraps(g)
          def w(*a, **k):
            nonlocal n
            n += 1
            w.calls = n
            return g(*a, **k)
          w.calls = 0
          return w
        def make(v):
          @counted
          def f(x): return x*v
          return f, {'x':1}
        """,
    "decorator attr counter": """
        import functools
        def counted(g):
          @functools.wraps(g)
          def w(*a, **k):
            w.calls += 1
            return g(*a, **k)
          w.calls = 0
          return w
        def make(v):
          @counted
          def f(x): return x*v
          return f, {'x':1}
        """,
    "nested function": """
        def make(v):
          log=[]; n=0
          def f(x):
            def note(y):
              nonlocal n
              n += 1
              log.append(y)
            note(x)
            return x*v
          return f, {'x':1}
        """,
    "nested sibling helper": """
        def make(v):
          log=[]; n=0
          def note(y):
              nonlocal n
              n += 1
              log.append(y)
          def f(x):
            note(x)
            return x*v
          return f, {'x':1}
        """,
    "lambda helper append": """
        def make(v):
          log=[]
          note = lambda y: log.append(y)
          def f(x):
            note(x)
            return x*v
          return f, {'x':1}
        """,
    "bound method append": """
        def make(v):
          log=[]
          note = log.append
          def f(x):
            note(x)
            return x*v
          return f, {'x':1}
        """,
    "local alias": """
        def make(v):
          log=[]
          def f(x):
            l = log
            l.append(x)
            return x*v
          return f, {'x':1}
        """,
    "augmented list": """
        def make(v):
          log=[]
          def f(x):
            nonlocal log
            log += [x]
            return x*v
          return f, {'x':1}
        """,
    "default list": """
        def make(v):
          def f(x, log=[]):
            log.append(x)
            return x*v
          return f, {'x':1}
        """,
    "default list global fn": """
        def f(x, log=[]):
            log.append(x)
            return x*2
        def make(v): return f, {'x':1}
        """,
    "default dict memo": """
        def make(v):
          def f(x, *, memo={}):
            if x not in memo: memo[x] = x*v
            return memo[x]
          return f, {'x':1}
        """,
    "default augmented": """
        def make(v):
          def f(x, log=[]):
            log += [x]
            return x*v
          return f, {'x':1}
        """,
    "default list in helper": """
        def make(v):
          def g(x, seen=[]):
            seen.append(x)
            return x*v
          def f(x): return g(x)
          return f, {'x':1}
        """,
    "default counter object": """
        import itertools
        def make(v):
          def f(x, _n=[0]):
            _n[0] += 1
            return x*v
          return f, {'x':1}
        """,
    "self.calls": """
        class M:
          def __init__(self, v): self.v=v; self.calls=0
          def f(self, x):
            self.calls += 1
            return x*self.v
        def make(v): return M(v).f, {'x':1}
        """,
    "self.log": """
        class M:
          def __init__(self, v): self.v=v; self.log=[]
          def f(self, x):
            self.log.append(x)
            return x*self.v
        def make(v): return M(v).f, {'x':1}
        """,
    "self.last": """
        class M:
          def __init__(self, v): self.v=v; self.last=None
          def f(self, x):
            self.last = x
            return x*self.v
        def make(v): return M(v).f, {'x':1}
        """,
    "self.last new": """
        class M:
          def __init__(self, v): self.v=v
          def f(self, x):
            self.last = x
            return x*self.v
        def make(v): return M(v).f, {'x':1}
        """,
    "callable class": """
        class M:
          def __init__(self, v): self.v=v; self.calls=0; self.history=[]
          def __call__(self, x):
            self.calls += 1
            self.history.append((x, 1))
            return x*self.v
        def make(v): return M(v), {'x':1}
        """,
    "callable memo": """
        class M:
          def __init__(self, v): self.v=v; self.memo={}
          def __call__(self, x):
            if x not in self.memo: self.memo[x]=x*self.v
            return self.memo[x]
        def make(v): return M(v), {'x':1}
        """,
    "callable lazy": """
        class M:
          def __init__(self, v): self.v=v; self.model=None
          def __call__(self, x):
            if self.model is None: self.model=[self.v]
            return x*self.model[0]
        def make(v): return M(v), {'x':1}
        """,
    "self helper method": """
        class M:
          def __init__(self, v): self.v=v; self.calls=0
          def note(self): self.calls += 1
          def f(self, x):
            self.note()
            return x*self.v
        def make(v): return M(v).f, {'x':1}
        """,
    "self stats": """
        class M:
          def __init__(self, v): self.v=v; self.stats={'n':0}
          def f(self, x):
            self.stats['n'] += 1
            return x*self.v
        def make(v): return M(v).f, {'x':1}
        """,
    "partial of method": """
        import functools
        class M:
          def __init__(self, v): self.v=v; self.calls=0
          def f(self, x, k):
            self.calls += 1
            return x*self.v*k
        def make(v): return functools.partial(M(v).f, k=1), {'x':1}
        """,
    "partial with list": """
        import functools
        def g(log, x):
          log.append(x)
          return x
        def make(v): return functools.partial(g, []), {'x':1}
        """,
    "classmethod counter": """
        class M:
          calls = 0
          @classmethod
          def f(cls, x):
            cls.calls += 1
            return x*2
        def make(v): return M.f, {'x':1}
        """,
    "class attr counter": """
        class M:
          calls = 0
          def __init__(self, v): self.v=v
          def f(self, x):
            M.calls += 1
            return x*self.v
        def make(v): return M(v).f, {'x':1}
        """,
    "type(self) counter": """
        class M:
          calls = 0
          def __init__(self, v): self.v=v
          def f(self, x):
            type(self).calls += 1
            return x*self.v
        def make(v): return M(v).f, {'x':1}
        """,
    "class-level list": """
        class M:
          log = []
          def __init__(self, v): self.v=v
          def f(self, x):
            self.log.append(x)
            return x*self.v
        def make(v): return M(v).f, {'x':1}
        """,
    "class-level private memo": """
        class M:
          _cache = {}
          def __init__(self, v): self.v=v
          def f(self, x):
            if (self.v, x) not in self._cache: self._cache[self.v, x] = x*self.v
            return self._cache[self.v, x]
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "class private counter instances": """
        class M:
          _made = 0
          def __init__(self, v):
            self.v=v
            M._made += 1
          def f(self, x): return x*self.v
        def g(x): return M(2).f(x)
        def make(v): return g, {'x':1}
        """,
    "class private counter of input": """
        class M:
          _made = 0
          def __init__(self, v):
            self.v=v
          def f(self, x):
            M._made += 1
            return x*self.v
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "global private counter": """
        _n = 0
        def f(x):
          global _n
          _n += 1
          return x
        def make(v): return f, {'x':1}
        """,
    "global in helper": """
        _LOG = []
        def note(x): _LOG.append(x)
        def f(x):
          note(x)
          return x
        def make(v): return f, {'x':1}
        """,
    "global changed in other module attr": """
        import types
        STATE = types.SimpleNamespace(n=0, rate=2)
        def f(x):
          STATE.n += 1
          return x*STATE.rate
        def make(v): return f, {'x':1}
        """,
    "module attribute": """
        import sys
        me = sys.modules[__name__]
        n = 0
        def f(x):
          me.n += 1
          return x
        def make(v): return f, {'x':1}
        """,
    "function attr table": """
        def f(x):
          if x not in f._table: f._table[x] = x*2
          return f._table[x]
        f._table = {}
        def make(v): return f, {'x':1}
        """,
    "helper function attr table": """
        def g(x):
          if x not in g._table: g._table[x] = x*2
          return g._table[x]
        g._table = {}
        def f(x): return g(x)
        def make(v): return f, {'x':1}
        """,
    "function attr counter by helper": """
        def f(x):
          note()
          return x
        def note(): f.calls += 1
        f.calls = 0
        def make(v): return f, {'x':1}
        """,
    "generator closure": """
        def make(v):
          log=[]
          def f(x):
            for i in range(x):
              log.append(i)
              yield i*v
          return f, {'x':3}
        """,
    "async closure": """
        def make(v):
          log=[]; n = 0
          async def f(x):
            nonlocal n
            n += 1
            log.append(x)
            return x*v
          return f, {'x':3}
        """,
    "batch closure": """
        from hypernodes import node
        def make(v):
          log=[]
          n = 0
          def b(x):
            nonlocal n
            n += 1
            log.append(len(x))
            return [i*v for i in x]
          return node(lambda x: x*v, output_name='y', batch=b), {'x':3}
        """,
    "lru cached helper": """
        import functools
        def make(v):
          @functools.lru_cache
          def g(x): return x*v
          def f(x): return g(x)
          return f, {'x':3}
        """,
    "with lock": """
        import threading
        def make(v):
          lock = threading.Lock(); log=[]
          def f(x):
            with lock: log.append(x)
            return x*v
          return f, {'x':3}
        """,
    "closure deque, Counter": """
        import collections
        def make(v):
          d = collections.deque(maxlen=3); c = collections.Counter()
          def f(x):
            d.append(x); c.update([x]); c[x] += 1
            return x*v
          return f, {'x':3}
        """,
    "closure array": """
        import numpy as np
        def make(v):
          a = np.zeros(3)
          def f(x):
            a[0] += x
            return x*v
          return f, {'x':3}
        """,
    "closure array slice": """
        import numpy as np
        def make(v):
          a = np.zeros(3)
          def f(x):
            a[:] = x
            return x*v
          return f, {'x':3}
        """,
    "closure del": """
        def make(v):
          d = {1: 1, 3:1}
          def f(x):
            d.pop(x, None)
            if 1 in d: del d[1]
            return x*v
          return f, {'x':3}
        """,
    "setattr self": """
        class M:
          def __init__(self, v): self.v=v; self.last=None
          def f(self, x):
            setattr(self, 'last', x)
            return x*self.v
        def make(v): return M(v).f, {'x':1}
        """,
    "object.__setattr__ frozen": """
        import dataclasses
        @dataclasses.dataclass(frozen=True)
        class M:
          v: int
          _n: int = 0
          def f(self, x):
            object.__setattr__(self, '_n', self._n + 1)
            return x*self.v
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "setattr counter getattr": """
        class M:
          def __init__(self, v): self.v=v; self._n=0
          def f(self, x):
            setattr(self, '_n', getattr(self, '_n') + 1)
            return x*self.v
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "__dict__ memo": """
        class M:
          def __init__(self, v): self.v=v
          def f(self, x):
            self.__dict__['_last'] = x
            return x*self.v
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "append private": """
        class M:
          def __init__(self, v): self.v=v; self._log=[]
          def f(self, x):
            self._log.append(x)
            return x*self.v
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "append private by helper": """
        class M:
          def __init__(self, v): self.v=v; self._log=[]
          def f(self, x): return x*self.v
        def note(m, x): m._log.append(x)
        def g(m, x):
          note(m, x)
          return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "set private last": """
        class M:
          def __init__(self, v): self.v=v; self._last=None
          def f(self, x):
            self._last = x
            return x*self.v
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "private stats dict": """
        class M:
          def __init__(self, v): self.v=v; self._stats={}
          def f(self, x):
            self._stats[x] = self._stats.get(x, 0) + 1
            return x*self.v
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "private counter by context manager": """
        import contextlib
        class M:
          def __init__(self, v): self.v=v; self._depth=0
          @contextlib.contextmanager
          def _enter(self):
            self._depth += 1
            try: yield
            finally: self._depth -= 1
          def f(self, x):
            with self._enter(): return x*self.v
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "private counter other class": """
        class Meter:
          def __init__(self): self._n = 0
          def tick(self): self._n += 1
        class M:
          def __init__(self, v): self.v=v; self._meter=Meter(); self.meter = self._meter
          def f(self, x):
            self._meter.tick()
            return x*self.v
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "super counter": """
        class B:
          def __init__(self): self._n=0
          def f(self, x): self._n += 1; return x
        class M(B):
          def __init__(self, v): super().__init__(); self.v=v
          def f(self, x): return super().f(x)*self.v
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "lazy via load()": """
        def load(v): return [v]
        class M:
          def __init__(self, v): self.v=v; self._model=None
          def f(self, x):
            if self._model is None: self._model = load(self.v)
            return x*self._model[0]
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "lazy or": """
        class M:
          def __init__(self, v): self.v=v; self._model=None
          def f(self, x):
            self._model = self._model or [self.v]
            return x*self._model[0]
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "lazy with": """
        class M:
          def __init__(self, v): self.v=v; self._ready=False
          def _setup(self):
            if not self._ready:
              self._model = [self.v]
              self._ready = True
          def f(self, x):
            self._setup()
            return x*self._model[0]
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "lazy early return": """
        class M:
          def __init__(self, v): self.v=v; self._model=None
          def load(self):
            if self._model is not None: return
            self._model = [self.v]
          def f(self, x):
            self.load()
            return x*self._model[0]
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "lazy walrus": """
        class M:
          def __init__(self, v): self.v=v; self._model=None
          def f(self, x):
            if (model := self._model) is None: model = self._model = [self.v]
            return x*model[0]
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "memo with key function": """
        class M:
          def __init__(self, v): self.v=v; self._cache={}
          def f(self, x):
            key = str(x)
            if key in self._cache: return self._cache[key]
            r = x*self.v
            self._cache[key] = r
            return r
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "memo in try": """
        class M:
          def __init__(self, v): self.v=v; self._cache={}
          def f(self, x):
            try: return self._cache[x]
            except KeyError: pass
            r = x*self.v
            self._cache[x] = r
            return r
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "memo hits counter": """
        class M:
          def __init__(self, v): self.v=v; self._cache={}; self._hits=0; self._misses=0
          def f(self, x):
            if x in self._cache:
              self._hits += 1
              return self._cache[x]
            self._misses += 1
            r = self._cache[x] = x*self.v
            return r
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "memo defaultdict": """
        class M:
          def __init__(self, v): self.v=v; self._cache={}
          def _compute(self, x): return x*self.v
          def f(self, x):
            if x not in self._cache:
              self._cache[x] = self._compute(x)
            return self._cache[x]
        def g(m, x): return [m.f(i) for i in range(x)]
        def make(v): return g, {'x':5, 'm': M(v)}
        """,
    "memo numpy": """
        import numpy as np
        class M:
          def __init__(self, v): self.v=v; self._cache={}
          def f(self, text):
            if text not in self._cache:
              self._cache[text] = [float(ord(c))*self.v for c in text]
            return self._cache[text]
        def g(m, x): return sum(sum(m.f(w)) for w in x.split())
        def make(v): return g, {'x':'a b a', 'm': M(v)}
        """,
    "timing": """
        import time
        class M:
          def __init__(self, v): self.v=v; self._start=None; self._seconds=[]
          def f(self, x):
            self._start = time.time()
            r = x*self.v
            self._seconds.append(time.time() - self._start)
            return r
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "enum counter": """
        import enum
        class E(enum.Enum):
          A = 1
          def hit(self):
            self._n = getattr(self, '_n', 0) + 1
            return self.value
        def f(e, x): return e.hit()*x
        def make(v): return f, {'x':1, 'e': E.A}
        """,
    "exception counter": """
        class E(Exception):
          def __init__(self, m): super().__init__(m); self._seen = 0; self.m = m
          def note(self):
            self._seen += 1
            return self.m
        def f(e, x): return e.note()
        def make(v): return f, {'x':1, 'e': E('a')}
        """,
    "list subclass counter": """
        class L(list):
          def __init__(self, *a): super().__init__(*a); self._reads = 0
          def __getitem__(self, i):
            self._reads += 1
            return super().__getitem__(i)
        def f(l, x): return l[0]*x
        def make(v): return f, {'x':1, 'l': L([v])}
        """,
    "dict subclass with lazy index": """
        class D(dict):
          _index = None
          def find(self, v):
            if self._index is None: self._index = {b: a for a, b in self.items()}
            return self._index[v]
        def f(d, x): return d.find(x)
        def make(v): return f, {'x':1, 'd': D(a=1)}
        """,
    "user cached_property": """
        class cached_property:
          def __init__(self, f): self.f = f
          def __set_name__(self, o, n): self.n = n
          def __get__(self, o, c=None):
            if o is None: return self
            v = o.__dict__[self.n] = self.f(o)
            return v
        class M:
          def __init__(self, v): self.v = v
          @cached_property
          def big(self): return [self.v]*3
        def f(m, x): return sum(m.big)*x
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "functools cached_property in dataclass": """
        import functools, dataclasses
        @dataclasses.dataclass
        class M:
          v: int
          @functools.cached_property
          def big(self): return [self.v]*3
        class N(M): pass
        def f(m, x): return sum(m.big)*x
        def make(v): return f, {'x':1, 'm': N(v)}
        """,
    "cached_property in pydantic": """
        import functools, pydantic
        class M(pydantic.BaseModel):
          v: int
          @functools.cached_property
          def big(self): return [self.v]*3
        def f(m, x): return sum(m.big)*x
        def make(v): return f, {'x':1, 'm': M(v=v)}
        """,
    "computed_field cached in pydantic": """
        import functools, pydantic
        class M(pydantic.BaseModel):
          v: int
          @pydantic.computed_field
          @functools.cached_property
          def big(self) -> list: return [self.v]*3
        def f(m, x): return sum(m.big)*x
        def make(v): return f, {'x':1, 'm': M(v=v)}
        """,
    "cached_property in nx": """
        import functools, networkx
        class M(networkx.DiGraph):
          @functools.cached_property
          def big(self): return len(self.nodes)
        def f(m, x): return m.big*x
        def make(v):
          g = M(); g.add_node(v)
          return f, {'x':1, 'm': g}
        """,
    "decorator memo by args": """
        import functools
        def memo(g):
          cache = {}
          @functools.wraps(g)
          def w(*a, **k):
            key = (a, tuple(sorted(k.items())))
            if key in cache: return cache[key]
            r = cache[key] = g(*a, **k)
            return r
          w.cache = cache
          return w
        def make(v):
          @memo
          def f(x): return x*v
          return f, {'x':1}
        """,
    "class decorator callable with counter": """
        import functools
        class counted:
          def __init__(self, g): functools.update_wrapper(self, g); self.g = g; self.calls = 0
          def __call__(self, *a, **k):
            self.calls += 1
            return self.g(*a, **k)
        def make(v):
          @counted
          def f(x): return x*v
          return f, {'x':1}
        """,
    "class decorator helper with timing": """
        import functools, time
        class timed:
          def __init__(self, g): functools.update_wrapper(self, g); self.g = g; self.times = []
          def __call__(self, *a, **k):
            t = time.perf_counter()
            try: return self.g(*a, **k)
            finally: self.times.append(time.perf_counter() - t)
        @timed
        def g(x): return x*2
        def f(x): return g(x)
        def make(v): return f, {'x':1}
        """,
    "retry decorator state": """
        import functools
        def retry(n):
          def deco(g):
            attempts = {}
            @functools.wraps(g)
            def w(*a, **k):
              for i in range(n):
                attempts[i] = attempts.get(i, 0) + 1
                return g(*a, **k)
            return w
          return deco
        def make(v):
          @retry(3)
          def f(x): return x*v
          return f, {'x':1}
        """,
    "passed to helper": """
        def note(l, x): l.append(x)
        def make(v):
          log = []
          def f(x):
            note(log, x)
            return x*v
          return f, {'x':1}
        """,
    "passed to helper kw": """
        def note(x, into): into.append(x)
        LOG = []
        def f(x):
          note(x, into=LOG)
          return x
        def make(v): return f, {'x':1}
        """,
    "heappush": """
        import heapq
        H = []
        def f(x):
          heapq.heappush(H, x)
          return x
        def make(v): return f, {'x':1}
        """,
    "async callable": """
        class M:
          def __init__(self, v): self.v = v; self.calls = 0
          async def __call__(self, x):
            self.calls += 1
            return x*self.v
        def make(v): return M(v), {'x':1}
        """,
    "generator method": """
        class M:
          def __init__(self, v): self.v = v; self.yielded = 0
          def f(self, x):
            for i in range(x):
              self.yielded += 1
              yield i
        def make(v): return M(v).f, {'x':3}
        """,
    "static counter": """
        class M:
          _count = 0
          @staticmethod
          def f(x):
            M._count += 1
            return x
        def make(v): return M.f, {'x':1}
        """,
    "singleton": """
        class S:
          _instance = None
          @classmethod
          def get(cls):
            if cls._instance is None: cls._instance = cls()
            return cls._instance
          def run(self, x): return x*2
        def f(x): return S.get().run(x)
        def make(v):
          S._instance = None
          return f, {'x':1}
        """,
    "global lazy": """
        _model = None
        def get():
          global _model
          if _model is None: _model = [2]
          return _model
        def f(x): return get()[0]*x
        def make(v): return f, {'x':1}
        """,
    "global lazy object": """
        class M:
          def __init__(self): self.w = 2
        _model = None
        def get():
          global _model
          if _model is None: _model = M()
          return _model
        def f(x): return get().w*x
        def make(v): return f, {'x':1}
        """,
    "global memo by helper": """
        _CACHE = {}
        def get(k):
          if k not in _CACHE: _CACHE[k] = k*2
          return _CACHE[k]
        def f(x): return get(x)
        def make(v): return f, {'x':1}
        """,
    "global memo alias": """
        _CACHE = {}
        def f(x):
          cache = _CACHE
          if x not in cache: cache[x] = x*2
          return cache[x]
        def make(v): return f, {'x':1}
        """,
    "module state": """
        import types, sys
        s = types.ModuleType('stt'); s.__file__='/x/stt.py'; s.COUNT = 0; s.LOG = []
        sys.modules['stt'] = s
        import stt
        def f(x):
          stt.COUNT += 1
          stt.LOG.append(x)
          return x
        def make(v): return f, {'x':1}
        """,
    "setter property": """
        class M:
          def __init__(self, v): self.v = v; self._calls = 0
          @property
          def calls(self): return self._calls
          @calls.setter
          def calls(self, n): self._calls = n
          def f(self, x):
            self._calls += 1
            return x*self.v
        def f(m, x): return m.f(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "slots inherit": """
        class B:
          __slots__ = ('_n',)
          def __init__(self): self._n = 0
          def tick(self): self._n += 1
        class M(B):
          __slots__ = ('v',)
          def __init__(self, v): super().__init__(); self.v = v
          def f(self, x):
            super().tick()
            return x*self.v
        def f(m, x): return m.f(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "del counter": """
        class M:
          def __init__(self, v): self.v = v; self._tmp = None
          def f(self, x):
            self._tmp = x
            y = self._tmp*self.v
            del self._tmp
            self._tmp = None
            return y
        def f(m, x): return m.f(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "context manager class": """
        class M:
          def __init__(self, v): self.v = v; self._depth = 0
          def __enter__(self):
            self._depth += 1
            return self
          def __exit__(self, *a): self._depth -= 1
          def f(self, x): return x*self.v
        def f(m, x):
          with m: return m.f(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "helper module function given object": """
        def bump(o): o._count = o._count + 1
        class M:
          def __init__(self, v): self.v = v; self._count = 0
        def f(m, x):
          bump(m)
          return m.v*x
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "lru on method": """
        import functools
        class M:
          def __init__(self, v): self.v = v
          @functools.lru_cache
          def f(self, x): return x*self.v
          def __hash__(self): return hash(self.v)
          def __eq__(self, o): return self.v == o.v
        def f(m, x): return m.f(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "attrs class counter": """
        import attrs
        @attrs.define
        class M:
          v: int
          _n: int = attrs.field(default=0, init=False, repr=False, eq=False)
          def f(self, x):
            self._n += 1
            return x*self.v
        def f(m, x): return m.f(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "stats object": """
        class Stats:
          def __init__(self): self.calls = 0; self.total = 0.0
          def add(self, t):
            self.calls += 1
            self.total += t
        class M:
          def __init__(self, v): self.v = v; self._stats = Stats()
          def f(self, x):
            self._stats.add(1.5)
            return x*self.v
        def f(m, x): return m.f(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "defaultdict private": """
        import collections
        class M:
          def __init__(self, v): self.v = v; self._by = collections.defaultdict(int)
          def f(self, x):
            self._by[x] += 1
            return x*self.v
        def f(m, x): return m.f(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "set seen": """
        class M:
          def __init__(self, v): self.v = v; self._seen = set()
          def f(self, x):
            self._seen.add(x)
            return x*self.v
        def f(m, x): return m.f(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "returns text with x": """
        class M:
          def __init__(self, v): self.v = v; self.calls = 0
          def __call__(self, x):
            self.calls += 1
            return {'x': x, 'y': x*self.v}
        def make(v): return M(v), {'x':1}
        """,
    "a counter that is logged": """
        import logging
        logger = logging.getLogger(__name__)
        class M:
          def __init__(self, v): self.v=v; self._n = 0
          def f(self, x):
            self._n += 1
            logger.debug('call %d', self._n)
            return x*self.v
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "returns dict with input and call": """
        class M:
          def __init__(self, v): self.v = v; self._log = []
          def call(self, x):
            self._log.append(x)
            return x*self.v
        def f(m, text): return {'text': text, 'n': m.call(len(text)), 'w': text.split()}
        def make(v): return f, {'text':'a b', 'm': M(v)}
        """,
    "two inputs": """
        class M:
          def __init__(self, v): self.v = v; self._calls = 0
          def call(self, x):
            self._calls += 1
            return x*self.v
        class N:
          def __init__(self, v): self.v = v; self._memo = {}
          def score(self, x):
            if x not in self._memo: self._memo[x] = x + self.v
            return self._memo[x]
        def f(m, n, x): return n.score(m.call(x))
        def make(v): return f, {'x':1, 'm': M(v), 'n': N(v)}
        """,
    "tokenizer with vocab memo": """
        class Tokenizer:
          def __init__(self, lower): self.lower = lower; self._vocab_cache = {}; self._hits = 0
          def tokenize(self, text):
            key = (text, self.lower)
            if key in self._vocab_cache:
              self._hits += 1
              return list(self._vocab_cache[key])
            tokens = (text.lower() if self.lower else text).split()
            self._vocab_cache[key] = tuple(tokens)
            return tokens
        def f(t, text): return t.tokenize(text)
        def make(v): return f, {'t': Tokenizer(True), 'text': 'A b'}
        """,
    "client lazily connects": """
        class Conn:
          def __init__(self, url): self.url = url
          def get(self, x): return self.url + x
        class Client:
          def __init__(self, url): self.url = url; self._conn = None; self._requests = 0
          @property
          def conn(self):
            if self._conn is None:
              self._conn = Conn(self.url)
            return self._conn
          def fetch(self, x):
            self._requests += 1
            return self.conn.get(x)
        def f(c, x): return c.fetch(x)
        def make(v): return f, {'c': Client('u'), 'x': 'a'}
        """,
    "lock and counter": """
        import threading
        class M:
          def __init__(self, v): self.v = v; self._lock = threading.Lock(); self._n = 0
          def call(self, x):
            with self._lock:
              self._n += 1
            return x*self.v
        def f(m, x): return m.call(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "rate limiter": """
        import time
        class M:
          def __init__(self, v): self.v = v; self._last = 0.0
          def call(self, x):
            self._last = time.monotonic()
            return x*self.v
        def f(m, x): return m.call(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "history deque": """
        import collections
        class M:
          def __init__(self, v): self.v = v; self._recent = collections.deque(maxlen=5)
          def call(self, x):
            self._recent.append((x, self.v))
            return x*self.v
        def f(m, x): return m.call(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "stats dict with keys": """
        class M:
          def __init__(self, v): self.v = v; self._stats = {'calls': 0, 'chars': 0}
          def call(self, x):
            self._stats['calls'] += 1
            self._stats['chars'] += len(str(x))
            return x*self.v
          @property
          def stats(self): return dict(self._stats)
        def f(m, x): return m.call(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "warn once flag": """
        class M:
          def __init__(self, v): self.v = v; self._warned = False
          def call(self, x):
            if not self._warned:
              str('slow')
              self._warned = True
            return x*self.v
        def f(m, x): return m.call(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "counter via +=1 in nested function": """
        class M:
          def __init__(self, v): self.v = v; self._n = 0
          def call(self, x):
            def work(y):
              self._n += 1
              return y*self.v
            return [work(i) for i in range(x)]
        def f(m, x): return m.call(x)
        def make(v): return f, {'x':3, 'm': M(v)}
        """,
    "callable in global list": """
        class Step:
          def __init__(self, k): self.k = k; self.calls = 0
          def __call__(self, x):
            self.calls += 1
            return x*self.k
        STEPS = [Step(2), Step(3)]
        def f(x):
          for s in STEPS: x = s(x)
          return x
        def make(v): return f, {'x':3}
        """,
    "global service": """
        class Service:
          def __init__(self): self.requests = 0; self.url = 'u'
          def ask(self, x):
            self.requests += 1
            return self.url + x
        SERVICE = Service()
        def f(x): return SERVICE.ask(x)
        def make(v): return f, {'x':'a'}
        """,
    "class-level counter via cls": """
        class M:
          instances = 0
          def __new__(cls, *a):
            cls.instances += 1
            return super().__new__(cls)
          def __init__(self, v): self.v = v
          def call(self, x): return x*self.v
        def f(x): return M(2).call(x)
        def make(v): return f, {'x':1}
        """,
    "self passed to helper object": """
        class Tracker:
          def __init__(self): self._events = []
          def track(self, name): self._events.append(name)
        class M:
          def __init__(self, v): self.v = v; self._tracker = Tracker()
          def call(self, x):
            self._tracker.track('call')
            return x*self.v
        def f(m, x): return m.call(x)
        def make(v): return f, {'x':1, 'm': M(v)}
        """,
    "closure counter dict via helper class": """
        class Counter:
          def __init__(self): self.n = 0
          def up(self): self.n += 1
        def make(v):
          c = Counter()
          def f(x):
            c.up()
            return x*v
          return f, {'x':1}
        """,
    "timing decorator with stats": """
        import functools, time
        STATS = {}
        def timed(fn):
          @functools.wraps(fn)
          def w(*a, **k):
            t = time.perf_counter()
            r = fn(*a, **k)
            STATS.setdefault(fn.__name__, []).append(time.perf_counter() - t)
            return r
          return w
        @timed
        def f(x): return x
        def make(v): return f, {'x':1}
        """,
    "counter decorator attribute": """
        import functools
        def counted(fn):
          @functools.wraps(fn)
          def w(*a, **k):
            w.calls = getattr(w, 'calls', 0) + 1
            return fn(*a, **k)
          return w
        @counted
        def f(x): return x
        def make(v): return f, {'x':1}
        """,
    "largest value seen": """
        class M:
          def __init__(self): self._top = 0
          def f(self, x, v):
            self._top = max(self._top, x)
            return x*v
        def make(v):
          m = M()
          def f(x): return m.f(x, v)
          return f, {'x': 1}
        """,
    "largest of three values": """
        class M:
          def __init__(self): self._top = 0
          def f(self, x, v):
            self._top = max(self._top, x, 1)
            return x*v
        def make(v):
          m = M()
          def f(x): return m.f(x, v)
          return f, {'x': 1}
        """,
    "set just before it is read": """
        class M:
          def f(self, x):
            self._now = x
            return self._now
        def make(v):
          m = M()
          def f(x): return m.f(x)
          return f, {'x': 1}
        """,
    "cache cleared when full": """
        class M:
          def __init__(self): self._c = {}
          def f(self, x):
            if x not in self._c:
              if len(self._c) > 9:
                self._c.clear()
              self._c[x] = 2*x
            return self._c[x]
        def make(v):
          m = M()
          def f(x): return m.f(x)
          return f, {'x': 1}
        """,
    "closure variable never set": """
        def make(v):
          class M:
            def __init__(self): self._calls = 0
            def f(self, x):
              self._calls += 1
              return x*v if x else later
          m = M()
          def f(x): return m.f(x)
          if v is None: later = 0
          return f, {'x': 1}
        """,
    "list whose first items are dropped": """
        LOG = []
        def make(v):
          def f(x):
            LOG.extend([x, x])
            LOG.pop(0)
            y = -x
            LOG.append(y)
            LOG.pop(0)
            return y*v
          return f, {'x': 1}
        """,
}

INPUTS = {
    "closure read": """
        def make(v):
          t=[v]
          def f(x): return x*t[0]
          return f, {'x':1}
        """,
    "closure object, other attr": """
        import types
        def make(v):
          s=types.SimpleNamespace(n=0, rate=v)
          def f(x):
            s.n += 1
            return x*s.rate
          return f, {'x':1}
        """,
    "closure class object, other attr": """
        class S:
          def __init__(self, r): self.n=0; self.rate=r
        def make(v):
          s=S(v)
          def f(x):
            s.n += 1
            return x*s.rate
          return f, {'x':1}
        """,
    "global object, other attr": """
        class S:
          def __init__(self, r): self.n=0; self.rate=r
        s = None
        def f(x):
            s.n += 1
            return x*s.rate
        def make(v):
          global s
          s=S(v)
          return f, {'x':1}
        """,
    "global class attr other": """
        class S:
          n = 0
          rate = 1
        def f(x):
            S.n += 1
            return x*S.rate
        def make(v):
          S.rate = v
          return f, {'x':1}
        """,
    "default read": """
        def make(v):
          def f(x, t=[v]): return x*t[0]
          return f, {'x':1}
        """,
    "default scalar rebound": """
        def make(v):
          def f(x, k=v):
            k += 1
            return x*k
          return f, {'x':1}
        """,
    "default str rebound": """
        def make(v):
          def f(x, k=None, u='a'*v):
            if k is None: k = []
            u += 'b'
            k.append(u)
            return k
          return f, {'x':1}
        """,
    "self.total": """
        class M:
          def __init__(self, v): self.total=v
          def f(self, x):
            self.total += x
            return self.total
        def make(v): return M(v).f, {'x':1}
        """,
    "self weights": """
        class M:
          def __init__(self, v): self.w=v
          def f(self, x):
            y = self.w*x
            self.w = self.w - 0.5
            return y
        def make(v): return M(v).f, {'x':1}
        """,
    "callable read": """
        class M:
          def __init__(self, v): self.w=[v]
          def __call__(self, x): return self.w[0]*x
        def make(v): return M(v), {'x':1}
        """,
    "class private table": """
        class M:
          _table = {}
          def f(self, x): return self._table[x]
        def g(m, x): return m.f(x)
        def make(v):
          M._table = {1: v}
          return g, {'x':1, 'm': M()}
        """,
    "class private scalar": """
        class M:
          _rate = 1
          def f(self, x): return self._rate*x
        def g(m, x): return m.f(x)
        def make(v):
          M._rate = v
          return g, {'x':1, 'm': M()}
        """,
    "enum private": """
        import enum
        class E(enum.Enum):
          A = 1
          def __init__(self, x): self._w = x
        def g(m, x): return m._w*x
        def make(v):
          E.A._w = v
          return g, {'x':1, 'm': E.A}
        """,
    "enum private class attr": """
        import enum
        class E(enum.Enum):
          A = 1
          B = 2
        def g(m, x): return E._table[m]*x
        def make(v):
          E._table = {E.A: v}
          return g, {'x':1, 'm': E.A}
        """,
    "enum member attr via class": """
        import enum
        class E(enum.Enum):
          A = 1
          B = 2
          @property
          def w(self): return self._w
        def g(x): return E.A.w*x
        def make(v):
          E.A._w = v
          return g, {'x':1}
        """,
    "exception private": """
        class E(Exception):
          def __init__(self, m, code): super().__init__(m); self._code = code
        def g(m, x): return m._code
        def make(v): return g, {'x':1, 'm': E('a', v)}
        """,
    "exception cause": """
        def g(m, x): return str(m.__cause__)
        def make(v):
          e = ValueError('a'); e.__cause__ = KeyError(v)
          return g, {'x':1, 'm': e}
        """,
    "exception notes": """
        def g(m, x): return str(m.__notes__)
        def make(v):
          e = ValueError('a'); e.add_note(str(v))
          return g, {'x':1, 'm': e}
        """,
    "function attr private": """
        def f(x): return x*f._rate
        def make(v):
          f._rate = v
          return f, {'x':1}
        """,
    "function attr private passed": """
        def h(x): return x
        def f(g, x): return x*g._rate
        def make(v):
          h._rate = v
          return f, {'x':1, 'g': h}
        """,
    "bound method private passed": """
        class M:
          def __init__(self, v): self._v=v
          def get(self): return self._v
        def f(g, x): return g()
        def make(v): return f, {'x':1, 'g': M(v).get}
        """,
    "partial attrs": """
        import functools
        def h(x): return x
        def f(g, x): return g.rate
        def make(v):
          p = functools.partial(h, 1); p.rate = v
          return f, {'x':1, 'g': p}
        """,
    "partial subclass": """
        import functools
        class P(functools.partial):
          pass
        def h(x): return x
        def f(g, x): return g.rate
        def make(v):
          p = P(h, 1); p.rate = v
          return f, {'x':1, 'g': p}
        """,
    "function subclass lru attr": """
        import functools
        @functools.lru_cache
        def h(x): return x
        def f(g, x): return g.rate
        def make(v):
          h.rate = v
          return f, {'x':1, 'g': h}
        """,
    "nx subclass private": """
        import networkx as nx
        class G(nx.DiGraph):
          def __init__(self, *a): super().__init__(*a); self._w = 1
        def f(g, x): return g._w
        def make(v):
          g = G(); g._w = v
          return f, {'x':1, 'g': g}
        """,
    "nx graph attr": """
        import networkx as nx
        def f(g, x): return sorted(g.edges(data=True))
        def make(v):
          g = nx.Graph(); g.add_edge(1,2,weight=v)
          return f, {'x':1, 'g': g}
        """,
    "pandas subclass metadata": """
        import pandas as pd
        class D(pd.DataFrame):
          _metadata = ['unit']
          @property
          def _constructor(self): return D
        def f(g, x): return g.unit
        def make(v):
          d = D({'a':[1]}); d.unit = v
          return f, {'x':1, 'g': d}
        """,
    "pandas subclass private attr": """
        import pandas as pd
        class D(pd.DataFrame):
          _metadata = ['_unit']
        def f(g, x): return g._unit
        def make(v):
          d = D({'a':[1]}); d._unit = v
          return f, {'x':1, 'g': d}
        """,
    "pandas subclass content": """
        import pandas as pd
        class D(pd.DataFrame): pass
        def f(g, x): return g.a.tolist()
        def make(v): return f, {'x':1, 'g': D({'a':[v]})}
        """,
    "pandas subclass private not metadata": """
        import pandas as pd
        class D(pd.DataFrame): pass
        def f(g, x): return g._thing
        def make(v):
          d = D({'a':[1]})
          object.__setattr__(d, '_thing', v)
          return f, {'x':1, 'g': d}
        """,
    "ndarray subclass": """
        import numpy as np
        class A(np.ndarray): pass
        def f(g, x): return g._info
        def make(v):
          a = np.zeros(2).view(A); a._info = v
          return f, {'x':1, 'g': a}
        """,
    "userdict": """
        import collections
        class U(collections.UserDict): pass
        def f(g, x): return g['a']
        def make(v): return f, {'x':1, 'g': U(a=v)}
        """,
    "lock subclass": """
        import threading
        class C(threading.Condition): pass
        def f(g, x): return g.rows
        def make(v):
          t = C(); t.rows = v
          return f, {'x':1, 'g': t}
        """,
    "logger subclass": """
        import logging
        class C(logging.Logger): pass
        def f(g, x): return g.rows
        def make(v):
          t = C('a'); t.rows = v
          return f, {'x':1, 'g': t}
        """,
    "pydantic private": """
        import pydantic
        class P(pydantic.BaseModel):
          _x: int = 1
        def f(g, x): return g._x
        def make(v):
          p = P(); p._x = v
          return f, {'x':1, 'g': p}
        """,
    "user cached_property-named": """
        class P:
          def __init__(self, v): self._total = v
          @property
          def total(self): return self._total
        def f(g, x): return g.total
        def make(v): return f, {'x':1, 'g': P(v)}
        """,
    "generic dict subclass private": """
        class P(dict):
          def __init__(self, v): self._v = v
        def f(g, x): return g._v
        def make(v): return f, {'x':1, 'g': P(v)}
        """,
    "module global private": """
        _rate = 1
        def f(x): return _rate*x
        def make(v):
          global _rate
          _rate = v
          return f, {'x':1}
        """,
    "metaclass private": """
        class Meta(type):
          _t = 1
        class A(metaclass=Meta): pass
        def f(x): return A._t
        def make(v):
          Meta._t = v
          return f, {'x':1}
        """,
    "nonlocal two closures": """
        def make(v):
          n = 0
          rate = v
          def f(x):
            nonlocal n
            n += 1
            return x*rate
          return f, {'x':1}
        """,
    "dict-memo closure over different v": """
        def make(v):
          c = {}
          def f(x):
            if x not in c: c[x] = x*v
            return c[x]
          return f, {'x':1}
        """,
    "closure passes list": """
        def g(l): return l[0]
        def make(v):
          t = [v]
          def f(x): return g(t)
          return f, {'x':1}
        """,
    "class attr set by init but read": """
        class M:
          _scale = 1
          def f(self, x): return self._scale*x
          @classmethod
          def setup(cls, v): cls._scale = v
        def g(m, x): return m.f(x)
        def make(v):
          M.setup(v)
          return g, {'x':1, 'm': M()}
        """,
    "slots private": """
        class M:
          __slots__ = ('a', '_b')
          def __init__(self, v): self.a=1; self._b=v
          def f(self, x): return self._b
        def g(m, x): return m.f(x)
        def make(v): return g, {'x':1, 'm': M(v)}
        """,
    "builder returned": """
        class T:
          def __init__(self): self._rows = []
          def add(self, r): self._rows.append(r)
          def total(self): return sum(self._rows)
        def f(t, x):
          t.add(x)
          return t
        def g(t, x): return f(t, x).total()
        from hypernodes import node, Pipeline
        def make(v):
          t = T(); t.add(v)
          return g, {'t': t, 'x': 1}
        """,
    "sort": """
        def make(v):
          rows = [v, 5]
          def f(x):
            rows.sort()
            return rows[0]
          return f, {'x': 1}
        """,
    "pop used": """
        def make(v):
          rows = [v]
          def f(x): return rows.pop()
          return f, {'x': 1}
        """,
    "class attr by global": """
        class M:
          _scale = 1
          @classmethod
          def setup(cls, v): M._scale = v
          def f(self, x): return self._scale*x
        def f(m, x): return m.f(x)
        def make(v):
          M.setup(v)
          return f, {'x': 1, 'm': M()}
        """,
    "init fill": """
        class M:
          def __init__(self, v=None): self._w = v
          def f(self, x):
            if self._w is None: self._w = 1
            return self._w*x
        def f(m, x): return m.f(x)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "flag set by constructor": """
        class M:
          def __init__(self, v): self._w = v; self._ready = True
          def f(self, x):
            if not self._ready:
              self._w = 1
              self._ready = True
            return self._w*x
        def f(m, x): return m.f(x)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "or given": """
        class M:
          def __init__(self, v): self._w = v
          def f(self, x):
            self._w = self._w or 1
            return self._w*x
        def f(m, x): return m.f(x)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "own update read": """
        class M:
          def __init__(self, v): self._m = v
          def f(self, x):
            self._m = max(self._m, x)
            return self._m
        def f(m, x): return m.f(x)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "own update by user function": """
        SEEN = []
        def step(m):
          SEEN.append(m)
          return m
        class M:
          def __init__(self, v): self._m = v
          def f(self, x):
            self._m = step(self._m)
            return SEEN[-1]
        def f(m, x): return m.f(x)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "set before only in branch": """
        class M:
          def __init__(self, v): self._m = v
          def f(self, x):
            if x > 5: self._m = x
            return self._m
        def f(m, x): return m.f(x)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "set before in try": """
        class M:
          def __init__(self, v): self._m = v
          def f(self, x):
            try:
              self._m = 1//(x-1)
            except ZeroDivisionError: pass
            return self._m
        def f(m, x): return m.f(x)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "batchnorm": """
        class BN:
          def __init__(self, v): self._mean = float(v)
          def forward(self, x):
            y = x - self._mean
            self._mean = 0.9*self._mean + 0.1*x
            return y
        def f(m, x): return m.forward(x)
        def make(v): return f, {'x': 1, 'm': BN(v)}
        """,
    "self public batchnorm": """
        class BN:
          def __init__(self, v): self.mean = float(v)
          def __call__(self, x):
            y = x - self.mean
            self.mean = 0.9*self.mean + 0.1*x
            return y
        def make(v): return BN(v), {'x': 1}
        """,
    "global object read attr": """
        class S: pass
        S0 = S()
        def f(x):
          S0.seen = x
          return S0.rate*x
        def make(v):
          S0.rate = v
          return f, {'x': 1}
        """,
    "dict item read": """
        D = {}
        def f(x):
          D['n'] = D.get('n', 0) + 1
          return D['rate']*x
        def make(v):
          D.clear(); D['rate'] = v
          return f, {'x': 1}
        """,
    "list item read": """
        D = [0, 1]
        def f(x):
          D[0] += 1
          return D[1]*x
        def make(v):
          D[1] = v
          return f, {'x': 1}
        """,
    "enum missing": """
        import enum
        def make(v):
          class E(enum.Enum):
            A = 1
            @classmethod
            def _missing_(cls, x): return v
          def f(x):
            try: return E(99)
            except TypeError as e: return str(e)
          return f, {'x': 1}
        """,
    "enum str": """
        import enum
        def make(v):
          class E(enum.Enum):
            A = 1
            def __str__(self): return str(v)
          def f(x): return str(E.A)
          return f, {'x': 1}
        """,
    "helper attr": """
        def helper(x): return x
        def f(x): return helper(x)*helper.rate
        def make(v):
          helper.rate = v
          return f, {'x': 1}
        """,
    "torch add": """
        class T:
          def __init__(self, v): self.v = v
          def add(self, x): return self.v + x
        t = None
        def f(x): return t.add(x)
        def make(v):
          global t
          t = T(v)
          return f, {'x': 1}
        """,
    "frame add": """
        import pandas as pd
        t = None
        def f(x): return t.add(x).a.tolist()
        def make(v):
          global t
          t = pd.DataFrame({'a': [v]})
          return f, {'x': 1}
        """,
    "global with configure unreached": """
        RATE = 1
        class M:
          def configure(self, v):
            global RATE
            RATE = v
          def f(self, x): return RATE*x
        def f(m, x): return m.f(x)
        def make(v):
          m = M(); m.configure(v)
          return f, {'x': 1, 'm': m}
        """,
    "partial arg rebound": """
        import functools
        def g(k, x):
          k = k + 1
          return k*x
        def make(v): return functools.partial(g, v), {'x': 1}
        """,
    "partial list read": """
        import functools
        def g(k, x): return k[0]*x
        def make(v): return functools.partial(g, [v]), {'x': 1}
        """,
    "default rebound if none": """
        def make(v):
          def f(x, opts={'k': v}):
            opts = dict(opts)
            opts['x'] = x
            return opts['k']
          return f, {'x': 1}
        """,
    "shadowed": """
        LOG = [0]
        def make(v):
          LOG[0] = v
          def f(x):
            def g(LOG):
              LOG.append(1)
              return LOG
            g([])
            return LOG[0]
          return f, {'x': 1}
        """,
    "nested local same name": """
        def make(v):
          rows = [v]
          def f(x):
            def g():
              rows = []
              rows.append(1)
              return rows
            g()
            return rows[0]
          return f, {'x': 1}
        """,
    "helper changes other param": """
        def note(a, b): b.append(a[0]); return a[0]
        def make(v):
          rows = [v]
          def f(x): return note(rows, [])
          return f, {'x': 1}
        """,
    "inner Meter public read": """
        class Meter:
          def __init__(self, k): self.k = k; self.n = 0
          def tick(self): self.n += 1
        class M:
          def __init__(self, v): self._meter = Meter(v)
          def f(self, x):
            self._meter.tick()
            return x*self._meter.k
        def f(m, x): return m.f(x)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "str.format reads": """
        class M:
          def __init__(self, v): self._n = v
          def f(self, x):
            self._n += 1
            return '{0._n}'.format(self)
        def f(m, x): return m.f(x)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "dataclass repr": """
        import dataclasses
        @dataclasses.dataclass
        class M:
          k: int
          _n: int = 0
          def tick(self): self._n += 1
        def f(m, x):
          m.tick()
          return f'{m}'
        def make(v): return f, {'x': 1, 'm': M(1, v)}
        """,
    "dataclass astuple": """
        import dataclasses
        @dataclasses.dataclass
        class M:
          k: int
          _n: int = 0
          def tick(self): self._n += 1
        def f(m, x):
          m.tick()
          return dataclasses.astuple(m)
        def make(v): return f, {'x': 1, 'm': M(1, v)}
        """,
    "copy": """
        import copy
        class M:
          def __init__(self, v): self._rows = [v]
          def tick(self, x): self._rows.append(x)
          def __eq__(self, o): return vars(self) == vars(o)
        def f(m, x):
          m.tick(x)
          return copy.deepcopy(m)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "iter protocol": """
        class M:
          def __init__(self, v): self._rows = [v]
          def add(self, x): self._rows.append(x)
          def __iter__(self): return iter(self._rows)
        def f(m, x):
          m.add(x)
          return list(m)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "len protocol": """
        class M:
          def __init__(self, v): self._rows = [0]*v
          def add(self, x): self._rows.append(x)
          def __len__(self): return len(self._rows)
        def f(m, x):
          m.add(x)
          return len(m)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "json default": """
        import json
        class M:
          def __init__(self, v): self._rows = [v]
          def add(self, x): self._rows.append(x)
        def f(m, x):
          m.add(x)
          return json.dumps(m, default=lambda o: o.__dict__)
        def make(v): return f, {'x': 1, 'm': M(v)}
        """,
    "closure stale pair": """
        def make(v):
          log = []
          rate = [v]
          def f(x):
            log.append(rate[0])
            return x*rate[0]
          return f, {'x': 1}
        """,
    "a parameter set anew": """
        def make(v):
          def f(x, opts={'k': v}):
            opts = dict(opts)
            opts.update(x=x)
            return opts['k']
          return f, {'x': 1}
        """,
    "a weak reference": """
        import weakref
        class A:
          def __init__(self, v): self.v = v
        KEPT = []
        def f(g, x): return g().v
        def make(v):
          KEPT.append(A(v))
          return f, {'x': 1, 'g': weakref.ref(KEPT[-1])}
        """,
    "models whose method sounds like a change": """
        class M:
          def __init__(self, k): self.k = k
          def add(self, x): return self.k + x
        MODELS = []
        def f(x): return sum(m.add(x) for m in MODELS) + [m.add(x) for m in MODELS][0]
        def make(v):
          MODELS[:] = [M(v)]
          return f, {'x': 1}
        """,
    "models by name whose method sounds like a change": """
        class M:
          def __init__(self, k): self.k = k
          def update(self, x): return self.k + x
        MODELS = {}
        def f(x):
          for name in ['a']: y = MODELS[name].update(x)
          return y
        def make(v):
          MODELS['a'] = M(v)
          return f, {'x': 1}
        """,
    "rows in a list that is returned": """
        class T:
          def __init__(self, v): self._rows = [v]
          def add(self, r): self._rows.append(r)
        def f(tables, x):
          for t in tables: t.add(x)
          return tables
        def make(v): return f, {'tables': [T(v)], 'x': 1}
        """,
    "rows of an item that is returned": """
        class T:
          def __init__(self, v): self._rows = [v]
          def add(self, r): self._rows.append(r)
        def f(tables, x):
          tables[0].add(x)
          return tables
        def make(v): return f, {'tables': [T(v)], 'x': 1}
        """,
    "rows in an object that is returned": """
        class T:
          def __init__(self, v): self._rows = [v]
          def add(self, r): self._rows.append(r)
        class Box:
          def __init__(self, v): self.table = T(v)
        def f(box, x):
          table = box.table
          table.add(x)
          return box
        def make(v): return f, {'box': Box(v), 'x': 1}
        """,
    "rows in an object whose method returns them": """
        class T:
          def __init__(self, v): self._rows = [v]
          def add(self, r): self._rows.append(r)
        class Box:
          def __init__(self, v): self._table = T(v)
          def get(self): return self._table
        def f(box, x):
          box.get().add(x)
          return box
        def make(v): return f, {'box': Box(v), 'x': 1}
        """,
    "rows that a helper adds to, in a result": """
        class T:
          def __init__(self, v): self._rows = [v]
          def add(self, r): self._rows.append(r)
        def extend(table, x): table.add(x)
        def f(table, x):
          extend(table, x)
          return {'table': table}
        def make(v): return f, {'table': T(v), 'x': 1}
        """,
    "what is set where an error may be suppressed": """
        import contextlib
        class M:
          def __init__(self, v): self._m = v
          def call(self, x):
            with contextlib.suppress(ZeroDivisionError):
              self._m = 1 // (x - 1)
            return self._m
        def f(m, x): return m.call(x)
        def make(v): return f, {'m': M(v), 'x': 1}
        """,
    "a closure list of lists, read": """
        def make(v):
          rows = [[v]]
          def f(x): return [row[0] for row in rows][0] * x
          return f, {'x': 1}
        """,
    "a flag of the first call, which returns something else": """
        class M:
          def __init__(self): self._done = False
          def call(self, x):
            if not self._done:
              self._done = True
              return 'first'
            return 'later'
        def f(m, x): return m.call(x)
        def make(v):
          m = M()
          if v == 3: m.call(1)
          return f, {'m': m, 'x': 1}
        """,
    "a flag of the first call, after which a variable differs": """
        class M:
          def __init__(self): self._done = False
          def call(self, x):
            found = 'later'
            if not self._done:
              found = 'first'
              self._done = True
            return found
        def f(m, x): return m.call(x)
        def make(v):
          m = M()
          if v == 3: m.call(1)
          return f, {'m': m, 'x': 1}
        """,
}
