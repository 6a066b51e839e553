"""Every way of not yielding that we know, each as a handler: `tafe serve apps.zoo:app`.

`/stall/NAME?ms=30` keeps the hub from everybody else for about that long; `/yield/NAME?ms=30` does the same work
and lets the others run. `ZOO` says for each what a profiler should find: file, lines, function and cause; `/` lists it.

blocking.py     waits for the kernel without gevent      python_code.py  is busy in Python
native_code.py  is busy in C                             runtime.py      hides behind the interpreter, gevent or hooks
"""

from apps.zoo import blocking, native_code, python_code, runtime
from apps.zoo.table import ZOO, app

__all__ = ["ZOO", "app", "blocking", "native_code", "python_code", "runtime"]
