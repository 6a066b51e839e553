"""The application in Django, settings and all in one file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

if TYPE_CHECKING:
    from collections.abc import Iterator

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        SECRET_KEY=os.urandom(16).hex(),
        LOGGING={
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "root": {"handlers": ["console"]},
        },
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    )
    django.setup()


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello from django, {request.GET.get('name', 'nobody')}", content_type="text/plain")


def echo(request: HttpRequest) -> HttpResponse:
    body = request.body
    return JsonResponse({"length": len(body), "type": request.content_type, "first": body[:8].decode()})


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def pieces() -> Iterator[str]:
        for number in range(4):
            yield f"piece {number}\n"

    return StreamingHttpResponse(pieces(), content_type="text/plain")


def cookies(request: HttpRequest) -> HttpResponse:
    response = JsonResponse(dict(request.COOKIES))
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


def boom(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("as planned")


urlpatterns = [
    path("", index),
    path("echo", echo),
    path("stream", stream),
    path("cookies", cookies),
    path("boom", boom),
]

app = get_wsgi_application()
