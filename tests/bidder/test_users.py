"""GET and PUT /users/{id}."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tafe.app.testing import TestClient


def test_segments_that_were_written_are_read_back_sorted_and_single(bidder: TestClient) -> None:
    written = bidder.put("/users/3", json={"segments": [9, 2, 9, 2147483647]})
    assert written.status == 200
    assert written.json() == {"id": 3, "segments": [2, 9, 2147483647]}
    assert bidder.get("/users/3").json() == written.json()


def test_writing_replaces_and_leaves_other_users_alone(bidder: TestClient) -> None:
    before = bidder.get("/users/5").json()
    bidder.put("/users/4", json={"segments": [1, 2]})
    bidder.put("/users/4", json={"segments": [3]})
    assert bidder.get("/users/4").json()["segments"] == [3]
    assert bidder.get("/users/5").json() == before


def test_a_user_may_have_no_segments_and_is_still_known(bidder: TestClient) -> None:
    assert bidder.put("/users/6", json={"segments": []}).json() == {"id": 6, "segments": []}
    assert bidder.get("/users/6").json() == {"id": 6, "segments": []}


@pytest.mark.parametrize("user", ["0", "-1", "1001", "9223372036854775807"])
def test_an_unknown_user_is_not_found_and_not_made(bidder: TestClient, user: str) -> None:
    assert bidder.put(f"/users/{user}", json={"segments": [1]}).status == 404
    answer = bidder.get(f"/users/{user}")
    assert answer.status == 404
    assert answer.json()["error"]["message"] == "no such user"


@pytest.mark.parametrize("user", ["abc", "1.5", "9223372036854775808", ""])
def test_what_is_not_a_number_is_no_user(bidder: TestClient, user: str) -> None:
    assert bidder.get(f"/users/{user}").status == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "segments"),
        ({"segments": None}, "segments"),
        ({"segments": "1"}, "segments"),
        ({"segments": [1, "2"]}, "segments[1]"),
        ({"segments": [0]}, "segments[0]"),
        ({"segments": [2**31]}, "segments[0]"),
        ({"segments": list(range(1, 102))}, "segments"),
        ([1], "body"),
    ],
)
def test_wrong_segments_are_named_and_change_nothing(bidder: TestClient, body: Any, field: str) -> None:
    before = bidder.get("/users/7").json()
    answer = bidder.put("/users/7", json=body)
    assert answer.status == 400
    assert answer.json()["error"]["field"] == field
    assert bidder.get("/users/7").json() == before
