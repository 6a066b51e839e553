"""The application in Falcon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import falcon

if TYPE_CHECKING:
    from collections.abc import Iterator


class Index:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.text = f"hello from falcon, {request.get_param('name', default='nobody')}"


class Echo:
    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        body = request.bounded_stream.read()
        response.media = {"length": len(body), "type": request.content_type, "first": body[:8].decode()}


class Stream:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        def pieces() -> Iterator[bytes]:
            for number in range(4):
                yield b"piece %d\n" % number

        response.content_type = falcon.MEDIA_TEXT
        response.stream = pieces()


class Cookies:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.media = dict(request.cookies)
        response.set_cookie("one", "1")
        response.set_cookie("two", "2")


class Boom:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        raise RuntimeError("as planned")


app = falcon.App()
app.add_route("/", Index())
app.add_route("/echo", Echo())
app.add_route("/stream", Stream())
app.add_route("/cookies", Cookies())
app.add_route("/boom", Boom())
