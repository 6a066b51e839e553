"""What a request is called that nobody names."""

from __future__ import annotations

import pytest

from profiler.routes import Routes, route_of


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/", "GET /"),
        ("GET", "/users/17/edit", "GET /users/{}/edit"),
        ("PUT", "/o/123e4567-e89b-12d3-a456-426614174000", "PUT /o/{}"),
        ("GET", "/v2/items", "GET /v2/items"),
        ("GET", "/s/abcdefghijklmnopqrst", "GET /s/abcdefghijklmnopqrst"),
        ("GET", "/s/abcdefghij1234567890", "GET /s/{}"),
        ("GET", "/caf\xe9", "GET /caf\\xe9"),
    ],
)
def test_a_path_becomes_a_route_by_leaving_out_what_names_one_thing(method: str, path: str, route: str) -> None:
    assert route_of(method, path) == route


def test_a_long_path_does_not_make_a_long_label() -> None:
    assert len(route_of("GET", "/" + "z" * 5000)) == 200


def test_a_label_is_remembered_by_method_and_path() -> None:
    routes = Routes()
    assert routes.remember("GET", "/users/17") == "GET /users/{}"
    assert routes.known == {"GET": {"/users/17": "GET /users/{}"}}


def test_a_full_table_is_emptied() -> None:
    routes = Routes()
    for number in range(10_000):
        routes.remember("GET", f"/p{number}")
    assert sum(len(paths) for paths in routes.known.values()) == 10_000 - 2 * 4096
    assert routes.known["GET"]["/p9999"] == "GET /p9999"
