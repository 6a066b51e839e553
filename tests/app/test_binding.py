"""From a request to a handler's arguments."""

from __future__ import annotations

import functools
import json
import math
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tafe
from tafe.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from tafe.app.testing import TestResponse

_ANNOTATIONS = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "list[int]": list[int],
    "list[float]": list[float],
    "list[str]": list[str],
}


def ask(annotation: Any, query: str) -> tuple[list[Any], TestResponse]:
    """What a handler with one query parameter `it` got, and the answer."""
    app = tafe.App()
    seen: list[Any] = []

    def handler(it: Any) -> None:
        seen.append(it)

    handler.__annotations__["it"] = annotation
    app.get("/x")(handler)
    return seen, app.test_client().get(f"/x?{query}")


@pytest.mark.parametrize(
    ("annotation", "query", "value"),
    [
        ("int", "it=5", 5),
        ("int", "it=-9223372036854775808", -(2**63)),
        ("float", "it=1.5e3", 1500.0),
        ("float", "it=-.5", -0.5),
        ("bool", "it=true", True),
        ("bool", "it=0", False),
        ("str", "it=", ""),
        ("str", "it", ""),
        ("str", "it=a+b%2Bc", "a b+c"),
        ("str", "it=a=b", "a=b"),
        ("str", "&&it=x&", "x"),
        ("str", "it=%zz", "%zz"),
        ("str", "it=\xff", "\xff"),  # UTF-8 without escapes
        ("str", "%69t=x", "x"),
        ("list[str]", "it=a&other=1&it=b", ["a", "b"]),
        ("list[int]", "it=1&it=2", [1, 2]),
        ("list[float]", "it=1", [1.0]),
    ],
)
def test_a_query_value_arrives_converted(annotation: str, query: str, value: object) -> None:
    seen, answer = ask(_ANNOTATIONS[annotation], query)
    assert answer.status == 204
    assert seen == [value]
    assert type(seen[0]) is type(value)


@pytest.mark.parametrize(
    ("annotation", "query", "says"),
    [
        ("int", "it=five", "'five'; allowed: a whole number"),
        ("int", "it=1.0", "a whole number"),
        ("int", "it=", "a whole number"),
        ("int", "it=+1", "a whole number"),
        ("int", "it=1_0", "a whole number"),
        ("int", "it=%D9%A4", "a whole number"),
        ("int", "it=9223372036854775808", "fits 64 bits"),
        ("int", "it=" + "9" * 5000, "a whole number"),
        ("float", "it=nan", "a finite number"),
        ("float", "it=1e999", "a finite number"),
        ("float", "it=1e99999999", "a finite number"),
        ("bool", "it=yes", "true, false, 1 or 0"),
        ("bool", "it", "true, false, 1 or 0"),
        ("list[int]", "it=1&it=b", "'b'; allowed: a whole number"),
        ("str", "it=a&it=b", "given 2 times"),
        ("str", "it=%FF", "not UTF-8"),
        ("str", "other=1", "required"),
        ("list[str]", "", "required"),
    ],
)
def test_a_wrong_query_value_is_a_bad_request_naming_the_field(annotation: str, query: str, says: str) -> None:
    seen, answer = ask(_ANNOTATIONS[annotation], query)
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["field"]) == (400, "bad_request", "it")
    assert says in error["message"]
    assert len(error["message"]) < 200
    assert seen == []


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_64_bit_integer_survives_the_query(number: int) -> None:
    assert ask(int, f"it={number}")[0] == [number]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_survives_the_query(number: float) -> None:
    assert ask(float, "it=" + quote(repr(number)))[0] == [number]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_every_text_survives_the_query(texts: list[str]) -> None:
    assert ask(list[str], "&".join(f"it={quote_plus(text)}" for text in texts))[0] == [texts]


@given(st.sampled_from([int, float, bool, str, list[int], list[str]]), st.text(st.characters(max_codepoint=255)))
def test_no_query_whatever_makes_the_server_fail(annotation: Any, query: str) -> None:
    app = tafe.App()

    def handler(it: Any) -> None:
        assert type(it) is annotation or isinstance(it, list)

    handler.__annotations__["it"] = annotation
    app.get("/x")(handler)
    for given_query in (query, "it=" + query):
        assert app.test_client().get("/x", environ={"QUERY_STRING": given_query}).status in (204, 400)


def test_a_default_makes_a_query_value_optional() -> None:
    app = tafe.App()

    @app.get("/x")
    def handler(  # type: ignore[no-untyped-def]  # `text` is a str without saying so
        page: int = 1,
        name: str | None = None,
        tags: list[str] = [],  # noqa: B006
        old: Optional[int] = 3,  # noqa: UP045
        text="t",
    ) -> Any:
        return {"page": page, "name": name, "tags": tags, "old": old, "text": text}

    client = app.test_client()
    assert client.get("/x").json() == {"page": 1, "name": None, "tags": [], "old": 3, "text": "t"}
    assert client.get("/x?page=2&name=a&tags=b&old=4&text=u&unknown=1").json() == {
        "page": 2,
        "name": "a",
        "tags": ["b"],
        "old": 4,
        "text": "u",
    }


def test_a_value_that_may_be_none_is_none_when_absent() -> None:
    app = tafe.App()

    @app.get("/x")
    def handler(limit: int | None, names: list[str] | None) -> Any:
        return {"limit": limit, "names": names}

    assert app.test_client().get("/x").json() == {"limit": None, "names": None}
    assert app.test_client().get("/x?limit=x").status == 400


def test_everything_can_be_asked_for_at_once() -> None:
    app = tafe.App()

    @app.put("/users/{id:int}/{kind}")
    def handler(id: int, request: tafe.Request, body: dict[str, Any], *, kind: str, dry: bool = False) -> Any:  # noqa: A002
        return {"id": id, "kind": kind, "method": request.method, "body": body, "dry": dry}

    answer = app.test_client().put("/users/7/x?dry=1", json={"a": [1]})
    assert answer.json() == {"id": 7, "kind": "x", "method": "PUT", "body": {"a": [1]}, "dry": True}


def test_a_handler_with_the_request_may_leave_path_parameters_out() -> None:
    app = tafe.App()
    app.get("/{a:int}/{b}")(lambda request: dict(request.path_params))
    assert app.test_client().get("/1/x").json() == {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("annotation", "sent", "says"),
    [
        (dict, [1], "an object, not an array"),
        (dict[str, Any], 1.5, "an object, not a number"),
        (dict, "x", "an object, not a string"),
        (list, {}, "an array, not an object"),
        (list[Any], None, "an array, not null"),
        (list, True, "an array, not true or false"),
    ],
)
def test_a_body_of_another_kind_is_a_bad_request(annotation: Any, sent: Any, says: str) -> None:
    app = tafe.App()

    def handler(body: Any) -> None: ...

    handler.__annotations__["body"] = annotation
    app.post("/x")(handler)
    error = app.test_client().post("/x", body=json.dumps(sent)).json()["error"]
    assert (error["status"], error["field"]) == (400, "body")
    assert says in error["message"]


def test_a_body_without_annotation_is_any_json() -> None:
    app = tafe.App()
    app.post("/x")(lambda body: {"got": body})
    for value in ({"a": 1}, [1], 5, "x", True):
        assert app.test_client().post("/x", json=value).json() == {"got": value}


def test_methods_partials_and_callable_objects_are_handlers() -> None:
    class Thing:
        def method(self, n: int) -> Any:
            return {"method": n}

        def __call__(self, n: int) -> Any:
            return {"call": n}

    def three(n: int, extra: str) -> Any:
        return {extra: n}

    app = tafe.App()
    app.get("/a")(Thing().method)
    app.get("/b")(Thing())
    app.get("/c")(functools.partial(three, extra="partial"))
    client = app.test_client()
    assert [client.get(f"/{path}?n=1").json() for path in "ab"] == [{"method": 1}, {"call": 1}]
    assert client.get("/c?n=1").json() == {"partial": 1}
    assert all(f"{__file__}:" in info.where for info in app.routes())


def test_a_decorated_handler_keeps_its_parameters() -> None:
    def twice(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapper(**kwargs: Any) -> Any:
            return [fn(**kwargs), fn(**kwargs)]

        return wrapper

    app = tafe.App()

    @app.get("/x/{n:int}")
    @twice
    def handler(n: int, m: int = 2) -> int:
        return n * m

    assert app.test_client().get("/x/3").json() == [6, 6]


def test_a_decorator_returns_the_handler_itself() -> None:
    app = tafe.App()

    def handler() -> None: ...

    assert app.get("/x")(handler) is handler
    assert app.before(len) is len
    assert app.on_start(handler) is handler
    assert app.on_stop(deadline_s=1)(handler) is handler


async def _coroutine() -> None: ...


async def _async_generator() -> Any:
    yield b""


def _star(*args: Any) -> None: ...


def _star_star(**kwargs: Any) -> None: ...


def _positional(a: int, /) -> None: ...


def _unknown_type(when: complex) -> None: ...


def _typing_only(price: Decimal) -> None: ...


def _union(x: int | str) -> None: ...


def _list_of_lists(x: list[list[int]]) -> None: ...


def _body_int(body: int) -> None: ...


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (_coroutine, "async def"),
        (_async_generator, "async def"),
        (_star, "*args"),
        (_star_star, "**kwargs"),
        (_positional, "cannot be passed by name"),
        (_unknown_type, "'when' is annotated complex"),
        (_typing_only, "'Decimal' of 'price' cannot be evaluated"),
        (_union, "int | str"),
        (_list_of_lists, "list[list[int]]"),
        (_body_int, "`body` is annotated int"),
        (dict, "parameters cannot be read"),
        (5, "is not a function"),
    ],
)
def test_a_handler_that_cannot_work_is_an_error_at_registration(fn: Any, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        tafe.App().post("/x")(fn)
    assert says in caught.value.problem
    if callable(fn):
        assert fn.__name__ in caught.value.set_by
        assert (f"{__file__}:" if fn is not dict else "(type)") in caught.value.set_by


def test_a_path_parameter_that_the_handler_lacks_is_an_error_with_a_remedy() -> None:
    def handler() -> None: ...

    with pytest.raises(UsageError) as caught:
        tafe.App().get("/{id:int}")(handler)
    assert "{id}" in caught.value.problem
    assert "(id: int, ...)" in caught.value.try_


@pytest.mark.parametrize(("template", "remedy"), [("/{n}", "{n:int}"), ("/{n:float}", "{n:int}")])
def test_a_path_type_unlike_the_annotation_is_an_error_with_a_remedy(template: str, remedy: str) -> None:
    def handler(n: int) -> None: ...

    with pytest.raises(UsageError) as caught:
        tafe.App().get(template)(handler)
    assert caught.value.try_ == remedy


def test_a_float_annotation_takes_what_its_type_gives() -> None:
    app = tafe.App()

    @app.get("/{x:float}")
    def handler(x: float) -> Any:
        return {"x": math.floor(x)}

    assert app.test_client().get("/2.5").json() == {"x": 2}
