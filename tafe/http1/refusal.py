"""A request that is answered without asking the application: status, reason, and the connection is closed.

After a refusal nothing that follows on the connection can be trusted to start where we think it starts, so every
refusal closes (RFC 9112, 9.6 and 11.2). It is an `HTTPError`, so that one raised while an application reads a body
passes through its error handling with the right status.
"""

from __future__ import annotations

from http import HTTPStatus

from tafe.errors import HTTPError, code_of


def plain_response(status: int, message: str, *, head_only: bool = False, request_id: str = "") -> bytes:
    """A whole answer of the server's own, JSON like every other error, closing the connection.

    `message` is plain ASCII without quotes or backslashes: it is ours, never the client's.
    """
    named = f',"request_id":"{request_id}"' if request_id else ""
    body = f'{{"error":{{"status":{status},"code":"{code_of(status)}","message":"{message}"{named}}}}}'
    return _whole(status, "application/json", body, head_only=head_only)


def text_response(status: int, message: str, *, head_only: bool = False, request_id: str = "") -> bytes:  # noqa: ARG001
    """The same for who speaks HTTP/1.0, scripts and probes that print what they get: a line of text.

    A fault of the server's own is told by its phrase alone, as pywsgi does.
    """
    body = HTTPStatus(status).phrase if status == 500 else message
    return _whole(status, "text/plain", body, head_only=head_only)


def body_size(answer: bytes) -> int:
    """Bytes of the body of one of the answers above."""
    return len(answer) - answer.index(b"\r\n\r\n") - 4


def _whole(status: int, content_type: str, body: str, *, head_only: bool) -> bytes:
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nServer: tafe\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{'' if head_only else body}"
    ).encode("ascii")


class Refusal(HTTPError):
    """The request breaks a rule; `message` is one line of plain ASCII that is safe to show to the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
