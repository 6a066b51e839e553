"""The application in Flask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, Response, jsonify, make_response, request

if TYPE_CHECKING:
    from collections.abc import Iterator

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return f"hello from flask, {request.args.get('name', 'nobody')}"


@app.post("/echo")
def echo() -> Response:
    body = request.get_data()
    return jsonify(length=len(body), type=request.content_type, first=body[:8].decode())


@app.get("/stream")
def stream() -> Response:
    def pieces() -> Iterator[str]:
        for number in range(4):
            yield f"piece {number}\n"

    return Response(pieces(), mimetype="text/plain")


@app.get("/cookies")
def cookies() -> Response:
    response = make_response(jsonify(dict(request.cookies)))
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


@app.get("/boom")
def boom() -> str:
    raise RuntimeError("as planned")
