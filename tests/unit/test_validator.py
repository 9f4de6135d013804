"""The validator refuses what strategies must not hold, and nothing that they need."""

import ast
import dataclasses
import threading
import time
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.policy import DEFAULT_POLICY
from tasks.validator import ASTValidator, ValidationReport, Violation

NP, PD = "import numpy as np\n", "import pandas as pd\n"
TABLE = PD + "df = pd.DataFrame({'close': [1.0]})\n"

# (id, code, rule, line): the rule must be reported at that line.
HOSTILE = [
    ("nul", "x = 1\ny = '\0'\n", "R0", 2),
    ("lone-cr", "x = 1\n# a\rimport os\n", "R0", 2),
    ("surrogate", "x = 1\ny = '\ud800'\n", "R0", 2),
    ("cookie", "# -*- coding: latin-1 -*-\nx = 1\n", "R0", 1),
    ("cookie-line-2", "\n# vim: set fileencoding=utf-7 :\n", "R0", 2),
    ("syntax", "x = 1\ny = = 2\n", "R0", 2),
    ("indent", "def f():\nreturn 1\n", "R0", 2),
    ("bom", "\ufeffx = 1\n", "R0", 1),
    ("unclosed", "x = (1,\n", "R0", 1),
    ("huge-int", "x = " + "9" * 5000, "R0", 1),
    ("async-def", "x = 1\nasync def f():\n    pass\n", "R1", 2),
    ("await", "async def f():\n    await f()\n", "R1", 2),
    ("async-comprehension", "x = [i async for i in y()]\n", "R1", 1),
    ("async-for", "async def f(a):\n    async for i in a:\n        pass\n", "R1", 2),
    ("import", "import os\n", "R2", 1),
    ("import-as", "import os as numpy\n", "R2", 1),
    ("import-second", "import math, subprocess\n", "R2", 1),
    ("import-dotted", "import numpy.ctypeslib\n", "R2", 1),
    ("import-nested", "def f():\n    import sys\n", "R2", 2),
    ("from-unlisted", "from os import path\n", "R2", 1),
    ("from-name", "from math import os\n", "R2", 1),
    ("from-star", "from numpy import *\n", "R2", 1),
    ("from-relative", "from . import x\n", "R2", 1),
    ("from-relative-module", "from .math import sqrt\n", "R2", 1),
    ("future-module", "import __future__\n", "R2", 1),
    ("attrgetter", "from operator import attrgetter\n", "R2", 1),
    ("formatter", "from string import Formatter\n", "R2", 1),
    ("type-hints", "from typing import get_type_hints\n", "R2", 1),
    ("dunder-attribute", "x = ().__class__\n", "R3", 1),
    ("dunder-chain", "x = (1)\ny = (x\n  .__class__\n  .__base__)\n", "R3", 3),
    ("dunder-store", "class A: pass\nA.__call__ = print\n", "R3", 2),
    ("dunder-del", "class A: pass\ndel A.__init__\n", "R3", 2),
    ("dunder-augmented", "class A: pass\nA.__dict__ |= {}\n", "R3", 2),
    ("dunder-def", "class A:\n    def __getattribute__(self, n): return 1\n", "R3", 2),
    ("dunder-class-body", "class A:\n    __getattr__ = print\n", "R3", 2),
    ("dunder-argument", "def f(*, __x__=1): pass\n", "R3", 1),
    ("dunder-positional", "def f(__x__, /): pass\n", "R3", 1),
    ("dunder-keyword", "dict(__class__=1)\n", "R3", 1),
    ("dunder-handler", "try: pass\nexcept Exception as __builtins__: pass\n", "R3", 2),
    ("dunder-capture", "match 1:\n    case __x__: pass\n", "R3", 2),
    ("dunder-match-star", "match [1]:\n    case [*__x__]: pass\n", "R3", 2),
    ("dunder-match-rest", "match {}:\n    case {**__x__}: pass\n", "R3", 2),
    ("dunder-match-class", "match 1:\n    case int(__class__=c): pass\n", "R3", 2),
    ("dunder-global", "def f():\n    global __builtins__\n", "R3", 2),
    ("dunder-load", "print(__builtins__)\n", "R3", 1),
    ("dunder-import-name", "from numpy import __dict__\n", "R3", 1),
    ("dunder-import-as", "import math as __x__\n", "R3", 1),
    ("mangled-import", "class C:\n    import numpy as __np\n", "R3", 2),
    ("dunder-f-string", "x = f'{().__class__}'\n", "R3", 1),
    ("dunder-decorator", "@(lambda: 0).__class__\ndef f(): pass\n", "R3", 1),
    ("dunder-default", "def f(x=().__class__): pass\n", "R3", 1),
    ("dunder-annotation", "def f(x: ().__class__): pass\n", "R3", 1),
    ("dunder-lambda", "f = lambda x: x.__subclasses__\n", "R3", 1),
    ("private", TABLE + "x = df._mgr\n", "R4", 3),
    ("private-on-call", TABLE + "x = df.copy()._mgr\n", "R4", 3),
    ("private-self-rebound", TABLE + "self = df\n", "R4", 3),
    ("private-match", "match 1:\n    case int(_mgr=m): pass\n", "R4", 2),
    ("frame", "g = (i for i in ())\nx = g.gi_frame\n", "R5", 2),
    ("frame-globals", "x = (lambda f: f.f_globals)\n", "R5", 1),
    ("traceback", "try: 1 / 0\nexcept Exception as e:\n    x = e.tb_frame\n", "R5", 3),
    ("mro", "x = int.mro()\n", "R5", 1),
    ("error-object", "try: 1\nexcept AttributeError as e: x = e.obj\n", "R5", 2),
    ("match-frame", "match 1:\n    case int(f_back=b): pass\n", "R5", 2),
    ("eval", "eval('1')\n", "R6", 1),
    ("eval-alias", "x = 1\ne = eval\n", "R6", 2),
    ("eval-callback", "x = map(eval, ['1'])\n", "R6", 1),
    ("exec-decorator", "@exec\ndef f(): pass\n", "R6", 1),
    ("exec-default", "def f(x=exec): pass\n", "R6", 1),
    ("exec-comprehension", "x = [f for f in [exec]]\n", "R6", 1),
    ("exec-walrus", "if (f := exec): pass\n", "R6", 1),
    ("exec-star", "print(*[exec])\n", "R6", 1),
    ("exec-class-body", "class A:\n    run = exec\n", "R6", 2),
    ("exec-base", "class A(metaclass=exec): pass\n", "R6", 1),
    ("exec-lambda", "f = lambda: exec\n", "R6", 1),
    ("exec-annotation", "x: exec = 1\n", "R6", 1),
    ("exec-slice", "x = [1][exec:]\n", "R6", 1),
    ("exec-augmented", "x = [1]\nx += [exec]\n", "R6", 2),
    ("exec-match-guard", "match 1:\n    case x if exec: pass\n", "R6", 2),
    ("exec-with", "with exec as f: pass\n", "R6", 1),
    ("exec-f-string", "x = f'{exec}'\n", "R6", 1),
    ("exec-yield", "def f():\n    yield exec\n", "R6", 2),
    ("import-call", "x = __import__('os')\n", "R6", 1),
    ("getattr", "x = getattr(1, 'real')\n", "R6", 1),
    ("globals", "x = globals()\n", "R6", 1),
    ("shadow-argument", "def f(eval): pass\n", "R6", 1),
    ("shadow-def", "def eval(x): return x\n", "R6", 1),
    ("shadow-assign", "eval = 1\n", "R6", 1),
    ("shadow-for", "for exec in []: pass\n", "R6", 1),
    ("shadow-import", "from math import sqrt as eval\n", "R6", 1),
    ("shadow-capture", "match 1:\n    case eval: pass\n", "R6", 2),
    ("unknown", "x = 1\nprin(x)\n", "R6", 2),
    ("type-three", "A = type('A', (), {})\n", "R6", 1),
    ("type-value", "make = type\n", "R6", 1),
    ("type-star", "A = type(*['A', (), {}])\n", "R6", 1),
    ("module-value", NP + "x = np\n", "R7", 2),
    ("module-argument", NP + "print(np)\n", "R7", 2),
    ("module-submodule", NP + "x = np.random\n", "R7", 2),
    ("module-bare", NP + "np.random\n", "R7", 2),
    ("module-list", NP + "x = [np]\n", "R7", 2),
    ("module-default", NP + "def f(x=np): pass\n", "R7", 2),
    ("module-return", NP + "def f():\n    return np\n", "R7", 3),
    ("module-walrus", NP + "print((x := np))\n", "R7", 2),
    ("module-target", NP + "np = 1\n", "R7", 2),
    ("module-parameter", NP + "def f(np): pass\n", "R7", 2),
    ("module-del", NP + "del np\n", "R7", 2),
    ("module-two", "import math as m\nimport json as m\n", "R7", 2),
    ("module-member-store", NP + "np.mean = print\n", "R7", 2),
    ("module-submodule-store", NP + "np.random = 1\n", "R7", 2),
    ("module-augmented", "import math\nmath.pi += 1\n", "R7", 2),
    ("module-for-target", "import math\nfor math.pi in []: pass\n", "R7", 2),
    ("module-reexport", "import json\njson.codecs.open('x')\n", "R7", 2),
    ("module-sys", "import warnings\nwarnings.sys.modules\n", "R7", 2),
    ("module-from", "from collections import abc\nx = abc\n", "R7", 2),
    ("module-unlisted", "import re\nre.purge()\n", "R7", 2),
    ("module-ctypes", TABLE + "df.x.ctypes\n", "R7", 3),
    ("module-match", "import statistics\nmatch 1:\n    case statistics.sys: pass\n", "R7", 3),
    ("wraps-list", "from functools import wraps\nw = wraps(print, ['x'])\n", "R7", 2),
    ("wraps-value", "import functools\nw = functools.wraps\n", "R7", 2),
    ("np-load", NP + "np.load('x', allow_pickle=True)\n", "R8", 2),
    ("np-load-value", NP + "f = np.load\n", "R8", 2),
    ("np-memmap", "from numpy import memmap\n", "R8", 1),
    ("np-as-strided", NP + "np.lib.stride_tricks.as_strided\n", "R8", 2),
    ("np-f2py", NP + "np.f2py.compile('')\n", "R8", 2),
    ("tofile", NP + "np.array([1]).tofile('x')\n", "R8", 2),
    ("pd-read-csv", PD + "pd.read_csv('x')\n", "R8", 2),
    ("pd-read-pickle", "from pandas import read_pickle as r\n", "R8", 1),
    ("pd-eval", PD + "pd.eval('1')\n", "R8", 2),
    ("to-pickle", TABLE + "df.to_pickle('x')\n", "R8", 3),
    ("to-pickle-value", TABLE + "f = df.to_pickle\n", "R8", 3),
    ("to-pickle-defined", TABLE + "def to_pickle(): pass\ndf.to_pickle('x')\n", "R8", 4),
    ("to-future", TABLE + "df.to_something('x')\n", "R8", 3),
    ("to-csv-path", TABLE + "df.to_csv('x.csv')\n", "R8", 3),
    ("to-csv-keyword", TABLE + "df.to_csv(path_or_buf='x')\n", "R8", 3),
    ("to-csv-spread", TABLE + "df.to_csv(**{'path_or_buf': 'x'})\n", "R8", 3),
    ("to-csv-star", TABLE + "df.to_csv(*['x'])\n", "R8", 3),
    ("to-csv-value", TABLE + "f = df.to_csv\n", "R8", 3),
    ("to-json-statement", TABLE + "df.to_json('x')\n", "R8", 3),
    ("to-csv-match", "match 1:\n    case int(to_csv=f): pass\n", "R8", 2),
    ("query", TABLE + "df.query('close > 1')\n", "R8", 3),
    ("df-eval", TABLE + "df.eval('close')\n", "R8", 3),
    ("plot", TABLE + "df.plot()\n", "R8", 3),
    ("option", PD + "pd.set_option('plotting.backend', 'os')\n", "R8", 2),
    ("option-pattern", PD + "pd.set_option('display.|plotting.backend', 'os')\n", "R8", 2),
    ("option-from", "from pandas import set_option as s\ns('io.x', 'os')\n", "R8", 2),
    ("option-attribute", PD + "pd.options.plotting.backend = 'os'\n", "R8", 2),
    ("apply-string", TABLE + "df.apply('to_pickle')\n", "R9", 3),
    ("agg-dict", TABLE + "df.agg({'close': 'to_csv'})\n", "R9", 3),
    ("agg-list", TABLE + "df.agg(['mean', 'to_csv'])\n", "R9", 3),
    ("agg-tuple", TABLE + "df.agg(('to_csv', 'mean'))\n", "R9", 3),
    ("agg-named", TABLE + "df.agg(x=('close', 'to_csv'))\n", "R9", 3),
    ("agg-spread", TABLE + "df.agg(**{'x': ('close', 'to_csv')})\n", "R9", 3),
    ("agg-keyword", TABLE + "df.transform(func='to_csv')\n", "R9", 3),
    ("agg-folded", TABLE + "df.agg('to_' + 'csv')\n", "R9", 3),
    ("agg-list-sum", TABLE + "df.agg(['mean'] + ['to_csv'])\n", "R9", 3),
    ("agg-f-string", TABLE + "x = 'csv'\ndf.agg(f'to_{x}')\n", "R9", 4),
    ("agg-percent", TABLE + "df.agg('to_%s' % 'csv')\n", "R9", 3),
    ("agg-conditional", TABLE + "df.agg('mean' if df.empty else 'to_csv')\n", "R9", 3),
    ("agg-star", TABLE + "df.apply(*['to_csv'])\n", "R9", 3),
    ("named-agg", PD + "pd.NamedAgg('close', 'to_csv')\n", "R9", 2),
    ("aggfunc", TABLE + "df.pivot_table(aggfunc='to_csv')\n", "R9", 3),
    ("dunder-text", "x = '__class__'\n", "R10", 1),
    ("dunder-bytes", "x = b'__class__'\n", "R10", 1),
    ("dunder-escaped", "x = '\\x5f_class_\\137'\n", "R10", 1),
    ("dunder-adjacent", "x = '__cl' 'ass__'\n", "R10", 1),
    ("dunder-sum", "x = 1\ny = '__cl' + 'as' + 's__'\n", "R10", 2),
    ("dunder-f-parts", "x = f'__{\"class\"}__'\n", "R10", 1),
    ("dunder-key", "x = {'__class__': 1}\n", "R10", 1),
    ("format-index", "x = '{0[a]}'.format({})\n", "R10", 1),
    ("format-attribute", "x = '{0.real}'.format(1)\n", "R10", 1),
    ("format-nested", "x = '{:{0.real}}'.format(1)\n", "R10", 1),
    ("format-variable", "t = '{0.real}'\nx = t.format(1)\n", "R10", 2),
    ("format-class", "f = str.format\n", "R10", 1),
    ("format-map", "t = '{a[b]}'\nx = t.format_map({})\n", "R10", 2),
    ("format-match", "match 'x':\n    case str(format=f): pass\n", "R10", 2),
    ("open-etc", "open('/etc/passwd')\n", "R11", 1),
    ("open-up", "open('/workspace/../etc/passwd')\n", "R11", 1),
    ("open-write", "open('/workspace/x', 'w')\n", "R11", 1),
    ("open-mode-keyword", "open('/workspace/x', mode='a')\n", "R11", 1),
    ("open-mode-variable", "m = 'r'\nopen('/workspace/x', m)\n", "R11", 2),
    ("open-variable", "p = '/workspace/x'\nopen(p)\n", "R11", 2),
    ("open-keyword", "open(file='/workspace/x')\n", "R11", 1),
    ("open-opener", "open('/workspace/x', opener=print)\n", "R11", 1),
    ("open-spread", "open('/workspace/x', **{'mode': 'w'})\n", "R11", 1),
    ("open-star", "open(*['/etc/passwd'])\n", "R11", 1),
    ("open-value", "f = open\n", "R11", 1),
    ("open-callback", "x = list(map(open, ['/etc/passwd']))\n", "R11", 1),
    ("open-shadowed", "def f(open): pass\ng = open\n", "R11", 2),
    ("open-descriptor", "open(3)\n", "R11", 1),
    ("logging-file", "import logging\nlogging.basicConfig(filename='x')\n", "R8", 2),
    ("logging-handlers", "import logging\nlogging.basicConfig(handlers=[])\n", "R8", 2),
    ("logging-spread", "import logging\nlogging.basicConfig(**{'filename': 'x'})\n", "R8", 2),
    ("logging-from", "from logging import basicConfig as b\nb(filename='x')\n", "R8", 2),
    ("logging-value", "import logging\nf = logging.basicConfig\n", "R8", 2),
    ("type-three-bound", "def f(type): pass\nA = type('A', (), {})\n", "R6", 2),
    ("type-star-bound", "def f(type): pass\nA = type(*['A', (), {}])\n", "R6", 2),
]

# (code, a piece of the hint): what an agent reads must say what to write instead.
TAUGHT = [
    ("make = type(int)\n", "isinstance(x, C)"),
    ("class C:\n    def copy(self): return type(self)(1)\n", "type(self)(price=1)"),
    ("from abc import ABCMeta\nC = ABCMeta('C', (), {})\n", "metaclass=ABCMeta"),
    ("from enum import Enum as E\nC = E('C', [str(1)])\n", "class Side(Enum)"),
    ("import enum\nmake = enum.Enum\n", "class Side(Enum)"),
    ("from enum import Enum\nclass B(Enum): pass\nmake = B\n", "class Side(Enum)"),
    ("from typing import TypedDict\nC = TypedDict('C', {})\n", "class Bar(TypedDict)"),
    (NP + "a = np.ndarray(3)\n", "np.zeros"),
    (NP + "A = np.ndarray\na = A(3)\n", "np.zeros"),
    (NP + "np.zeros(3).resize(9, refcheck=False)\n", "arr.resize(n)"),
    (PD + "from dataclasses import field\ns = pd.Series()\ns.name = str(1)\n", "series.rename"),
    ("from functools import cached_property\ncached_property(len).attrname = 'x'\n", "@cached_property"),
    (NP + "np.random.PCG64().capsule\n", "default_rng"),
    (
        "class M:\n    def __init__(self, v): self._v = v\n    def __eq__(self, other): return self._v == other._v\n",
        "add a property",
    ),
    ("from contextlib import contextmanager, suppress\n", "try and finally"),
    ("import contextlib\n@contextlib.contextmanager\ndef f(): yield\n", "__enter__"),
    ("from functools import singledispatch\n", "isinstance"),
    ("from operator import attrgetter\n", "itemgetter"),
    ("try:\n    pass\nexcept ValueError:\n    import traceback\n    traceback.print_exc()\n", "print(exc)"),
    ("f = {int: str}[type(1)]\n", "handlers.get(type(x))"),
    ("import enum\nclass P(enum.property): pass\n", "@property"),
    (
        "from pandas.api.indexers import FixedForwardWindowIndexer as W\nW(**{'window_size': 2})\n",
        "FixedForwardWindowIndexer(window_size=3)",
    ),
]

HONEST = {
    "empty": "",
    "crlf": "x = 1\r\nprint(x)\r\n",
    "main": 'if __name__ == "__main__":\n    print("ok")\n',
    "future": "from __future__ import annotations\nx: int = 1\n",
    "json-with": "import json\nwith open('/workspace/data.json') as f:\n    data = json.load(f)\n",
    "json-inline": "import json\ndata = json.load(open('/workspace/data.json', 'rb'))\n",
    "json-text": "import json\nprint(json.dumps(json.loads('{\"a\": 1}')))\n",
    "open-encoding": "f = open('/workspace/data.json', mode='r', encoding='utf-8')\n",
    "open-column": TABLE + "print(df.open, df.name, df['open'])\n",
    "open-field": "from dataclasses import dataclass\n@dataclass\nclass Bar:\n    open: float\n",
    "f-string": "p = 1.5\nprint(f'{p:.2f} {p!r:>10} {p:{10}.2f}')\n",
    "format": "print('{:.2f} {name} {0}'.format(1.0, name='x'))\n",
    "percent": "print('%.2f' % 1.0, '-' * 40, '______')\n",
    "docstring": 'def f():\n    """Call __init__ first."""\n    return 1\nf.__doc__ = "text"\n',
    "class": (
        "class Base:\n    '''Doc.'''\n    __slots__ = ('_x',)\n"
        "    def __init__(self, x=1):\n        super().__init__()\n        self._x = x\n"
        "    def __repr__(self):\n        return f'{type(self).__name__}({self._x})'\n"
        "    @property\n    def x(self):\n        return self._x\n"
        "    @classmethod\n    def make(cls):\n        return cls(cls._default)\n"
        "    _default = 3\n"
    ),
    "super-new": "class A:\n    def __new__(cls):\n        return super().__new__(cls)\n",
    "alias-method": "class A:\n    def __str__(self): return ''\n    __repr__ = __str__\n",
    "namedtuple": "from collections import namedtuple\nP = namedtuple('P', 'x')\nP(1)._replace(x=2)\n",
    "typing": "from typing import Optional\ndef f(x: Optional[list[int]] = None) -> int | None: ...\n",
    "type-name": "def order(type, size):\n    return type == 'buy' and size\n",
    "own-to": "class S:\n    def to_signal(self): return 1\n    def run(self): return self.to_signal()\n",
    "wraps": "import functools\ndef d(fn):\n    @functools.wraps(fn)\n    def g(): return fn()\n    return g\n",
    "wraps-from": "from functools import wraps\ndef d(fn):\n    @wraps(fn)\n    def g(): return fn()\n    return g\n",
    "apply-lambda": TABLE + "df['x'] = df.apply(lambda r: r['close'] * 2, axis=1)\n",
    "own-transform": "def f(model, price):\n    return model.transform(price * 2 - 1)\n",
    "agg": TABLE + "df.groupby('s').agg({'close': 'last', 'v': ['sum', 'mean']})\n",
    "agg-named": TABLE + "df.groupby('s').agg(hi=('high', 'max'), lo=pd.NamedAgg('low', 'min'))\n",
    "map-values": TABLE + "df['s'] = df['x'].map({1: 'BUY', -1: 'SELL'})\n",
    "resample": TABLE + "df.resample('1D').agg({'close': 'last'}).ffill()\n",
    "rolling": TABLE + NP + "df.close.rolling(5).apply(np.mean, raw=True)\n",
    "where": NP + "x = np.where(np.array([1, 2]) > 1, 1, -1)\n",
    "random": NP + "rng = np.random.default_rng(1)\nprint(rng.normal(size=3))\n",
    "windows": "from numpy.lib.stride_tricks import sliding_window_view as w\nprint(w([1, 2], 1))\n",
    "options": PD + "pd.options.mode.chained_assignment = None\npd.set_option('display.width', 9)\n",
    "exports": TABLE + "print(df.to_csv(index=False), df.to_json(), df.to_string(), df.to_dict())\n",
    "version": NP + PD + "print(np.__version__, pd.__version__)\n",
    "try": "try:\n    x = 1 / 0\nexcept (ZeroDivisionError, ValueError) as e:\n    print(e)\nfinally: pass\n",
    "match": "match [1, 2]:\n    case [a, *rest] if a: print(rest)\n    case {'k': v, **kw}: print(v, kw)\n",
    "comprehension": "x = {k: [i for i in v if i] for k, v in {}.items()}\n",
    "walrus": "if (n := len([1])) > 0:\n    print(n)\n",
    "global": "n = 0\ndef f():\n    global n\n    n += 1\n",
    "logging": "import logging\nlog = logging.getLogger(__name__)\nlog.info('x %s', 1)\n",
    "re": "import re\nprint(re.compile('a').match('a').group())\n",
    "same-import-twice": "import math\ndef f():\n    import math\n    return math.pi\n",
    "abc": "import collections.abc\nx: collections.abc.Callable = print\n",
    "long-elif": "x = 1\nif x == 0: pass\n" + "".join(f"elif x == {i}: pass\n" for i in range(100)),
    "invalid-escape": "x = '\\d'\ny = 1 is 1\n",
    "star": "def f(*a, **k): return f(*a, **k)\nfirst, *rest = [1, 2]\n",
    "underscore": "for _ in range(3): pass\nfor __ in range(3): pass\n",
    "class-columns": TABLE + "print(df.Flag, df.Enum, df.Flag.sum())\n",
    "enum-lookups": (
        "from enum import Enum, auto\nclass Side(Enum):\n    BUY = auto()\n    SELL = auto()\n"
        "print(Side(1), Side['BUY'], [s.name for s in Side], Side.BUY is Side.SELL)\n"
    ),
    "field-names": (
        PD + "from dataclasses import field, fields\nclass S:\n    def __init__(self, name):\n"
        "        if name:\n            self.size, self.name = 1, name\ns = pd.Series()\ns.name = 'close 5%'\n"
        "s.index.name = None\nprint([f.name for f in fields(S)])\n"
    ),
    "names-without-fields": PD + "s = pd.Series()\ns.name = f'{s.size}'\n",
    "type-comparisons": (
        "class M:\n    def __eq__(self, other):\n        return type(self) == type(other) and type(other) is M\n"
        "def f(x, cls: type[M]):\n    print(type(x).__name__, f'{type(x)}')\n"
        "    print(type(x) in (int, M), isinstance(x, type(1)))\n"
    ),
    "own-resize": "class W:\n    def resize(self, n): return n\nprint(W().resize(n=2))\n",
    "buffer-argument": "def stop(price, buffer=0.1): return price * buffer\nprint(stop(1, buffer=0.2))\n",
    "logging-config": "import logging\nlogging.basicConfig(level=logging.INFO, format='%(message)s')\n",
}


@pytest.fixture(scope="module")
def validator() -> ASTValidator:
    """One validator serves all tests, as it serves all strategies."""
    return ASTValidator()


@pytest.mark.parametrize(("code", "rule", "line"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_code_is_refused(validator: ASTValidator, code: str, rule: str, line: int) -> None:
    """Each hostile form is reported under its rule, at its line, with a hint."""
    report = validator.validate(code)
    assert not report
    assert (rule, line) in {(v.rule, v.line) for v in report.violations}
    assert_well_formed(report)


@pytest.mark.parametrize("code", HONEST.values(), ids=HONEST.keys())
def test_honest_code_passes(validator: ASTValidator, code: str) -> None:
    """What strategies really write is never refused."""
    assert validator.validate(code).violations == ()


@pytest.mark.parametrize(("code", "piece"), TAUGHT)
def test_hint_says_what_to_write(validator: ASTValidator, code: str, piece: str) -> None:
    """A name that was imported as another, or is an alias, gets the same hint."""
    (violation,) = validator.validate(code).violations
    assert piece in violation.hint


def assert_well_formed(report: ValidationReport) -> None:
    """Check what holds for every report, whatever the code was."""
    places = [(v.line, v.column) for v in report.violations]
    assert places == sorted(places)
    assert len(places) <= DEFAULT_POLICY.max_violations
    for violation in report.violations:
        assert violation.rule in DEFAULT_POLICY.hints
        assert violation.line >= 1
        assert violation.column >= 1
        assert len(violation.text) <= 80
        assert violation.text.isprintable()
        assert violation.message.isprintable()
        assert violation.message
        assert violation.hint


@pytest.mark.parametrize(
    ("code", "line", "column", "text"),
    [
        ("x = eval('1')", 1, 5, "eval"),
        ("é = 'ü'; eval(é)", 1, 10, "eval"),
        ("x = (1)\ny = (x\n    .real\n    .__class__)", 4, 6, "__class__"),
        ("価格 = '円'.__class__", 1, 10, "__class__"),
        ("import math, os as o", 1, 14, "os as o"),
        ("def f(a, eval): pass", 1, 10, "eval"),
        ("x = 1\r\ny = exec\r\n", 2, 5, "exec"),
        ("if True:\n\tx = exec", 2, 6, "exec"),
        ("x = 1\fy\nz = = 1", 1, 7, "y"),
    ],
)
def test_position_and_text(validator: ASTValidator, code: str, line: int, column: int, text: str) -> None:
    """Positions are 1-based, count characters, and text is what stands there."""
    first = validator.validate(code).violations[0]
    found = code.replace("\r\n", "\n").split("\n")[first.line - 1][first.column - 1 :]
    assert (first.line, first.column) == (line, column)
    assert first.text.startswith(text)
    assert found.startswith(text)


def test_long_and_unprintable_text_is_cut(validator: ASTValidator) -> None:
    """The quoted text fits one line and holds no control or bidirectional characters."""
    (violation,) = validator.validate("x = '__class__ \u202e" + "a" * 200 + "'").violations
    assert len(violation.text) == 80
    assert violation.text.endswith("…")
    assert "\\u202e" in violation.text


def test_all_violations_are_reported_in_order(validator: ASTValidator) -> None:
    """One round tells an agent everything, top to bottom."""
    code = "import os\nx = eval('1')\ny = x.__class__\nopen('/etc/passwd')\nx.to_pickle('y')\n"
    found = [(v.rule, v.line) for v in validator.validate(code).violations]
    assert found == [("R2", 1), ("R6", 2), ("R3", 3), ("R11", 4), ("R8", 5)]


def test_number_of_violations_is_capped(validator: ASTValidator) -> None:
    """The hundredth entry says how many are left out."""
    report = validator.validate("eval\n" * 500)
    assert len(report.violations) == 100
    assert "401 more" in report.violations[-1].message
    assert [v.line for v in report.violations] == list(range(1, 101))
    assert_well_formed(report)


def test_exactly_the_limit_is_not_capped(validator: ASTValidator) -> None:
    """A hundred violations are all listed."""
    report = validator.validate("eval\n" * 100)
    assert {v.rule for v in report.violations} == {"R6"}


@pytest.mark.parametrize(
    "code",
    [
        "#" * (256 * 1024 + 1),
        "é" * (128 * 1024 + 1),
        "-" * 100_000 + "1",
        "(" * 150 + ")" * 150,
        "x" + ".a" * 60_000,
        "x = " + "1+" * 60_000 + "1",
        "x = [" * 5_000,
        "x\n" * 100_000,
        "if x:\n pass\n" + "elif x:\n pass\n" * 5_000,
        "import a" + ".a" * 100_000,
        "import a" + " . \\\n a" * 30_000,
        "from a" + ".·é" * 40_000 + " import b",
        "x = '__" + "a" * 200_000 + "'",
        "x = f'{a:" + "{b}" * 2_000 + "}'",
    ],
    ids=lambda code: code[:12],
)
def test_oversized_code_ends_quickly(validator: ASTValidator, code: str) -> None:
    """Neither size nor depth nor a known slow spot of the parser makes it hang or raise."""
    started = time.monotonic()
    assert_well_formed(validator.validate(code))
    assert time.monotonic() - started < 5


def test_largest_allowed_source_passes(validator: ASTValidator) -> None:
    """The cap itself is still fine."""
    assert validator.validate("#" * (256 * 1024))


def test_depth_cap_names_a_line(validator: ASTValidator) -> None:
    """Too much nesting is one R0 violation at the place where it is too deep."""
    report = validator.validate("x = 1\ny = " + "x + " * 400 + "x")
    assert [(v.rule, v.line) for v in report.violations] == [("R0", 2)]


def test_no_warning_escapes(validator: ASTValidator) -> None:
    """The compiler's opinions on a strategy are not the worker's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert validator.validate(HONEST["invalid-escape"])


def test_nothing_is_executed(capsys: pytest.CaptureFixture[str]) -> None:
    """Decorators, defaults and class bodies are read, never run."""
    code = "@print\ndef f(x=print('default')): pass\nclass A:\n    print('body')\nprint('module')\n"
    assert ASTValidator().validate(code)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("open('/etc/passwd')", "/workspace/data.json"),
        ("import requests", "no network"),
        ("import requests.sessions", "no network"),
        ("x.query('a')", "boolean mask"),
        ("def f(a):\n    return a\nx = f(open)\nopen = 1", "open_price"),
        ("x = ().__class__", "type(x).__name__"),
        ("getattr(1, 'a')", "obj.name"),
        ("async def f(): pass", "ordinary def"),
        ("# coding: latin-1", "UTF-8"),
    ],
)
def test_hint_fits_the_violation(validator: ASTValidator, code: str, words: str) -> None:
    """The hint tells a language model what to write instead."""
    assert any(words in v.hint for v in validator.validate(code).violations)


def test_policy_can_be_narrowed() -> None:
    """A stricter policy refuses what the default allows, a wider one allows more."""
    modules = {**DEFAULT_POLICY.modules, "colorsys": frozenset({"rgb_to_hsv"})}
    wider = ASTValidator(dataclasses.replace(DEFAULT_POLICY, modules=modules))
    nodes = DEFAULT_POLICY.nodes - {"While"}
    stricter = ASTValidator(dataclasses.replace(DEFAULT_POLICY, nodes=nodes))
    assert wider.validate("import colorsys\ncolorsys.rgb_to_hsv(1, 1, 1)\n")
    assert [v.rule for v in stricter.validate("while True: pass").violations] == ["R1"]


def test_report_is_truthy_when_clean() -> None:
    """A report reads as an answer to: is it clean?"""
    violation = Violation("R6", 1, 1, "eval", "no", "rewrite")
    assert ValidationReport()
    assert not ValidationReport((violation,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        violation.line = 2  # type: ignore[misc]


def test_threads_share_a_validator(validator: ASTValidator) -> None:
    """Validation keeps no state between sources."""
    results: list[bool] = []
    codes = [HONEST["class"], "eval"] * 20
    threads = [threading.Thread(target=lambda c=code: results.append(bool(validator.validate(c)))) for code in codes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 20 + [True] * 20


def test_identifier_fields_are_all_known() -> None:
    """Every string field of every allowed node type is judged by some rule."""
    judged = {"name", "id", "attr", "arg", "asname", "module", "rest", "names", "kwd_attrs"}
    plain = {"type_comment", "kind", "value", "level", "conversion", "simple", "is_async"}
    samples = "\n".join([*HONEST.values(), *(c[1] for c in HOSTILE if c[2] != "R0")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nodes = list(ast.walk(ast.parse(samples.replace("from __future__", "from future"))))
    fields = {
        field
        for node in nodes
        for field, value in ast.iter_fields(node)
        if isinstance(value, str | int) or (isinstance(value, list) and str in map(type, value))
    }
    assert fields <= judged | plain


@given(st.text())
def test_arbitrary_text_never_raises(code: str) -> None:
    """Whatever the text is, there is a well-formed report."""
    assert_well_formed(ASTValidator().validate(code))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    """Control characters, half surrogates and odd line ends included."""
    assert_well_formed(ASTValidator().validate(data.decode("utf-8", "surrogateescape")))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=300)
@given(
    st.sampled_from([*HONEST.values(), *(case[1] for case in HOSTILE)]),
    st.lists(
        st.tuples(
            st.floats(0, 1),
            st.integers(0, 8),
            st.sampled_from(["", "(", ")", "\n", " ", ".", "__", "'", "{", "eval", "import ", "é"])
            | st.text(max_size=3),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_mutated_code_never_raises(code: str, edits: list[tuple[float, int, str]]) -> None:
    """Cutting and pasting into real snippets never breaks the validator."""
    for where, cut, paste in edits:
        start = int(where * len(code))
        code = code[:start] + paste + code[start + cut :]
    assert_well_formed(ASTValidator().validate(code))


def test_thousand_lines_are_fast(validator: ASTValidator) -> None:
    """A thousand honest lines take about 20 ms; the bound leaves room for a slow machine."""
    body = "".join(code for code in HONEST.values() if "__future__" not in code and "\r" not in code)
    code = body * (1000 // body.count("\n") + 1)
    best = 1.0
    for _ in range(5):
        started = time.perf_counter()
        validator.validate(code)
        best = min(best, time.perf_counter() - started)
    assert best < 0.2
