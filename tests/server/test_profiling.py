"""What the profiler is told of requests."""

from __future__ import annotations

import pytest

from tafe.profiling import route_of


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("GET /", "GET /"),
        ("GET /users/17/edit", "GET /users/{}/edit"),
        ("PUT /o/123e4567-e89b-12d3-a456-426614174000", "PUT /o/{}"),
        ("GET /v2/items", "GET /v2/items"),
        ("GET /s/abcdefghijklmnopqrst", "GET /s/abcdefghijklmnopqrst"),
        ("GET /s/abcdefghij1234567890", "GET /s/{}"),
        ("GET /caf\xe9", "GET /caf\\xe9"),
    ],
)
def test_a_path_becomes_a_route_by_leaving_out_what_names_one_thing(name: str, route: str) -> None:
    assert route_of(name) == route


def test_a_long_path_does_not_make_a_long_label() -> None:
    assert len(route_of("GET /" + "z" * 5000)) == 200
