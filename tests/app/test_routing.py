"""From a URL to a handler."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

import tafe
from tafe.errors import UsageError


def test_a_static_path_is_answered() -> None:
    app = tafe.App()

    @app.get("/hello")
    def hello() -> Any:
        return {"message": "hello"}

    answer = app.test_client().get("/hello")
    assert (answer.status, answer.json()) == (200, {"message": "hello"})
    assert answer.headers == [("Content-Type", "application/json"), ("Content-Length", "19")]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "42", 42),
        ("int", "-7", -7),
        ("int", "007", 7),
        ("int", str(2**63 - 1), 2**63 - 1),
        ("float", "1.5", 1.5),
        ("float", "-3", -3.0),
        ("str", "a%20b", "a b"),
        ("str", "caf%C3%A9", "café"),
        ("str", "%2B+", "++"),  # a plus is a plus in a path
        ("uuid", "12345678-1234-5678-1234-56781234567A", uuid.UUID("12345678-1234-5678-1234-56781234567a")),
        ("path", "a/b/c.txt", "a/b/c.txt"),
        ("path", "a/", "a/"),
    ],
)
def test_a_path_parameter_arrives_converted(kind: str, text: str, value: object) -> None:
    app = tafe.App()
    seen: list[object] = []

    @app.get(f"/x/{{it:{kind}}}")
    def handler(it: Any) -> None:
        seen.append(it)

    assert app.test_client().get(f"/x/{text}").status == 204
    assert seen == [value]
    assert type(seen[0]) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "4.2"),
        ("int", "+4"),
        ("int", "%D9%A4"),  # an Arabic digit, which int() would take
        ("int", "1_000"),
        ("int", "%2042"),
        ("int", "42%0A"),
        ("int", str(2**63)),
        ("int", "9" * 5000),
        ("float", "nan"),
        ("float", "inf"),
        ("float", "1e5"),
        ("float", "9" * 400),
        ("uuid", "{12345678-1234-5678-1234-567812345678}"),
        ("uuid", "12345678123456781234567812345678"),
        ("str", ""),
        ("str", "a/b"),
        ("path", ""),
    ],
)
def test_a_path_that_does_not_fit_its_type_is_not_found(kind: str, text: str) -> None:
    app = tafe.App()

    @app.get(f"/x/{{it:{kind}}}")
    def handler(it: Any) -> Any:
        return {"it": str(it)}

    answer = app.test_client().get(f"/x/{text}")
    assert (answer.status, answer.json()["error"]["code"]) == (404, "not_found")


def test_what_a_url_leads_to_does_not_depend_on_the_order_of_registration() -> None:
    templates = ["/u/me", "/u/{n:int}", "/u/{n:float}", "/u/{n:uuid}", "/u/{n}", "/u/{n:path}", "/{n:path}"]
    urls = ["/u/me", "/u/1", "/u/1.5", f"/u/{uuid.UUID(int=1)}", "/u/you", "/u/a/b", "/v"]
    for order in (templates, templates[::-1]):
        app = tafe.App()
        for template in order:
            app.get(template)(lambda request: request.route.template)
        assert [app.test_client().get(url).text for url in urls] == templates


def test_a_literal_that_leads_nowhere_gives_way_to_a_parameter() -> None:
    app = tafe.App()
    app.get("/a/b/c")(lambda: "literal")
    app.get("/{x}/b/d")(lambda x: f"parameter {x}")
    app.get("/{rest:path}")(lambda rest: f"rest {rest}")
    client = app.test_client()
    assert client.get("/a/b/c").text == "literal"
    assert client.get("/a/b/d").text == "parameter a"
    assert client.get("/a/b/e").text == "rest a/b/e"


def test_a_more_general_template_serves_a_method_that_the_specific_one_lacks() -> None:
    app = tafe.App()
    app.get("/users/me")(lambda: "me")
    app.delete("/users/{name}")(lambda name: f"deleted {name}")
    app.put("/users/{rest:path}")(lambda rest: f"put {rest}")
    client = app.test_client()
    assert client.delete("/users/me").text == "deleted me"
    assert client.put("/users/me").text == "put me"
    answer = client.post("/users/me")
    assert (answer.status, answer.header("Allow")) == (405, "DELETE, GET, HEAD, OPTIONS, PUT")


def test_a_known_path_with_another_method_is_405_with_the_allowed_ones() -> None:
    app = tafe.App()
    app.post("/x")(lambda: "posted")
    answer = app.test_client().get("/x")
    assert (answer.status, answer.header("Allow")) == (405, "OPTIONS, POST")
    error = answer.json()["error"]
    assert error["code"] == "method_not_allowed"
    assert "OPTIONS, POST" in error["message"]


def test_options_is_answered_with_the_allowed_methods() -> None:
    app = tafe.App()
    app.get("/x/{n:int}")(lambda n: "got")
    app.patch("/x/{n:int}")(lambda n: "patched")
    answer = app.test_client().options("/x/1")
    assert (answer.status, answer.header("Allow"), answer.body) == (204, "GET, HEAD, OPTIONS, PATCH", b"")
    assert app.test_client().options("/y").status == 404
    assert app.test_client().options("*").header("Allow") == "GET, HEAD, OPTIONS, PATCH"


def test_a_registered_options_handler_wins() -> None:
    app = tafe.App()
    app.get("/x")(lambda: "got")
    app.route("/x", methods=["OPTIONS"])(lambda: "mine")
    assert app.test_client().options("/x").text == "mine"


def test_head_is_get_without_the_body() -> None:
    app = tafe.App()

    @app.get("/x")
    def handler(request: tafe.Request) -> Any:
        return {"method": request.method}

    answer = app.test_client().head("/x")
    assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", "17")


@pytest.mark.parametrize("head_first", [True, False])
def test_a_registered_head_handler_wins_over_get(head_first: bool) -> None:
    app = tafe.App()
    for head in (head_first, not head_first):
        if head:
            app.route("/x", methods=["HEAD"])(lambda: tafe.Response(None, 200, {"X-Own": "yes"}))
        else:
            app.get("/x")(lambda: "got")
    assert app.test_client().head("/x").header("X-Own") == "yes"
    assert app.test_client().get("/x").text == "got"


def test_a_trailing_slash_is_another_path() -> None:
    app = tafe.App()
    app.get("/a")(lambda: "a")
    app.get("/b/")(lambda: "b")
    app.get("/c/{x}")(lambda x: "c")
    client = app.test_client()
    assert [client.get(url).status for url in ("/a", "/a/", "/b/", "/b", "/c/1", "/c/1/", "//a")] == [
        200,
        404,
        200,
        404,
        200,
        404,
        404,
    ]


def test_an_empty_path_is_the_root() -> None:
    app = tafe.App()
    app.get("/")(lambda: "root")
    app.get("/x")(lambda: "x")
    assert app.test_client().get("", environ={"PATH_INFO": ""}).text == "root"
    assert app.test_client().get("/", environ={"PATH_INFO": "x"}).status == 404


def test_a_static_path_may_hold_any_letter() -> None:
    app = tafe.App()
    app.get("/naïve/日本")(lambda request: request.path)
    assert app.test_client().get("/na%C3%AFve/%E6%97%A5%E6%9C%AC").text == "/naïve/日本"


def test_a_static_path_is_not_mistaken_for_the_bytes_of_another() -> None:
    app = tafe.App()
    app.get("/\xe9")(lambda: "one letter")
    app.get("/\xc3\xa9")(lambda: "two letters")  # what WSGI makes of the first one's bytes
    assert app.test_client().get("/%C3%A9").text == "one letter"
    assert app.test_client().get("/%C3%83%C2%A9").text == "two letters"


def test_a_path_that_is_not_utf8_is_a_bad_request() -> None:
    app = tafe.App()
    app.get("/{x}")(lambda x: x)
    answer = app.test_client().get("/%FF")
    assert (answer.status, answer.json()["error"]["code"]) == (400, "bad_request")


def test_one_handler_may_serve_several_methods() -> None:
    app = tafe.App()
    app.route("/x", methods=["POST", "PUT"])(lambda request: request.route.label)
    assert app.test_client().post("/x").text == "POST /x"
    assert app.test_client().put("/x").text == "PUT /x"


def test_the_span_is_named_by_the_template_without_types() -> None:
    class Span:
        route = "POST unknown"

    app = tafe.App()
    app.get("/users/{id:int}/files/{name:path}")(lambda id, name: None)  # noqa: A006
    named = []
    for method, url in (
        ("GET", "/users/1/files/a/b"),
        ("HEAD", "/users/1/files/a"),
        ("GET", "/x"),
        ("PUT", "/users/1"),
    ):
        span = Span()
        app.test_client().request(method, url, environ={"tafe.span": span})
        named.append(span.route)
    template = "GET /users/{id}/files/{name}"
    assert named == [template, template, "(no route)", "(no route)"]


def test_routes_are_listed_with_their_place() -> None:
    app = tafe.App()

    @app.route("/a/{n:int}", methods=("GET", "POST"))
    def first(n: int) -> None: ...

    @app.get("/b")
    def second() -> None: ...

    listed = app.routes()
    assert [(info.methods, info.template, info.handler.rpartition(".")[2]) for info in listed] == [
        (("GET", "POST"), "/a/{n:int}", "first"),
        (("GET",), "/b", "second"),
    ]
    assert all(f"{__file__}:" in info.where for info in listed)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("users", "does not start with a slash"),
        ("/a?b=1", "no path has"),
        ("/a b", "no path has"),
        ("/a%20b", "no path has"),
        ("/x/{id:number}", "unknown type 'number'"),
        ("/x/{id:}", "unknown type ''"),
        ("/x/{id", "segment '{id'"),
        ("/x/a{id}", "segment 'a{id}'"),
        ("/x/{}", "segment '{}'"),
        ("/x/{a-b}", "segment '{a-b}'"),
        ("/x/{a}{b}", "segment '{a}{b}'"),
        ("/{a}/{a}", "names 'a' twice"),
        ("/{a:path}/b", "something after '{a:path}'"),
        ("/{request}", "names a parameter 'request'"),
        ("/{body:int}", "names a parameter 'body'"),
    ],
)
def test_a_bad_template_is_an_error_that_names_the_handler(template: str, says: str) -> None:
    def handler(**_: Any) -> None: ...

    with pytest.raises(UsageError) as caught:
        tafe.App().get(template)(handler)
    assert says in caught.value.problem
    assert "handler" in caught.value.set_by
    assert f"{__file__}:" in caught.value.set_by


@pytest.mark.parametrize("methods", ["GET", [], ["get"], ["GET "], [1], None])
def test_bad_methods_are_an_error(methods: Any) -> None:
    with pytest.raises(UsageError, match="method"):
        tafe.App().route("/x", methods=methods)(lambda: None)


@pytest.mark.parametrize(
    ("first", "second"), [("/a", "/a"), ("/a/{x}", "/a/{y:str}"), ("/a/{x:int}/b", "/a/{y:int}/b")]
)
def test_two_handlers_for_the_same_urls_are_an_error_naming_both(first: str, second: str) -> None:
    app = tafe.App()

    def one(request: tafe.Request) -> None: ...

    def two(request: tafe.Request) -> None: ...

    app.get(first)(one)
    with pytest.raises(UsageError) as caught:
        app.route(second, methods=["POST", "GET"])(two)
    assert "one (" in caught.value.problem
    assert "two (" in caught.value.set_by
    # A refused registration leaves nothing behind.
    url = first.replace("{x}", "1").replace("{x:int}", "1")
    assert app.test_client().post(url).status == 405
    assert len(app.routes()) == 1


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan"), "1", True])
def test_a_timeout_that_is_no_time_is_an_error(timeout_s: Any) -> None:
    with pytest.raises(UsageError, match="timeout_s"):
        tafe.App().get("/x", timeout_s=timeout_s)(lambda: None)
