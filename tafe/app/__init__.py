"""Handlers: URL routing, parameters, answers and errors on top of WSGI.

`App` is a plain WSGI application and runs on any server. It knows requests and answers; connections, processes and
databases are others' business.
"""

from tafe.app.application import App
from tafe.app.request import Request
from tafe.app.response import Response

__all__ = ["App", "Request", "Response"]
