"""Bid requests of every shape, with the answer that each must get; the same ones for the same seed.

Four families:
- bought: offers the deal that campaign 1 of the filled database takes part in, so the answer is 200;
- refused: something in the request alone rules a bid out, so the answer is 204, for the reason given here;
- open: drawn at random, so the answer depends on the campaigns: 200 or 204;
- wrong: one value of a complete request is replaced by one of another type, out of bounds, missing or null, so the
  answer is 400 and names that value; and bodies that are not JSON or not an object.

Needs nothing but a bidder that was filled by apps.bidder.fill with at least `USERS` users.
"""

from __future__ import annotations

import base64
import copy
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from apps.bidder.population import EVERYWHERE
from tests.bidder.checked import CHECKED, REQUIRED

Json = Any
USERS = 1_000  # a database for these requests has at least so many

# Values of each JSON type; those of the other types are wrong in its place. A whole number is also a number.
_SAMPLES: dict[str, list[Json]] = {
    "string": ["300", ""],
    "integer": [7],
    "number": [1.5],
    "boolean": [True],
    "array": [[], [1]],
    "object": [{}, {"w": 1}],
}
_FITS = {"number": ("number", "integer")}
_SOURCES: dict[str, Json] = {
    "site": {"id": "s1", "domain": "news.example", "cat": ["IAB12"], "sectioncat": ["IAB1"], "pagecat": ["IAB2"]},
    "app": {"id": "a1", "bundle": "org.example.game", "cat": ["IAB9"], "sectioncat": ["IAB9"], "pagecat": ["IAB9"]},
    "dooh": {"id": "d1", "venuetype": ["1"], "venuetypetax": 1},
}


@dataclass(frozen=True, slots=True)
class Case:
    """A request body and what it must get: one of `statuses`, for 400 with `field`, for 204 with `nbr` (None: any)."""

    name: str
    body: bytes
    statuses: frozenset[int]
    field: str = ""
    nbr: int | None = None


def cases(seed: int = 1) -> list[Case]:
    """All of them, in a fixed order."""
    rng = random.Random(seed)
    families = (_bought(rng), _refused(), _open(rng), _wrong(), _not_a_request(), _missing(), _out_of_bounds())
    return [case for family in families for case in family]


def tcf_consent(*purposes: int) -> str:
    """A TCF v2 consent string that allows these purposes and says nothing else."""
    bits = 2 << (23 * 8 - 6)
    for purpose in purposes:
        bits |= 1 << (23 * 8 - 152 - purpose)
    return base64.urlsafe_b64encode(bits.to_bytes(23, "big")).decode().rstrip("=")


# Parts of requests


def native_markup() -> Json:
    return {
        "ver": "1.2",
        "assets": [
            {"id": 1, "required": 1, "title": {"len": 30}},
            {"id": 2, "required": 1, "img": {"type": 3, "w": 300, "h": 250, "wmin": 100, "hmin": 100}},
            {"id": 3, "required": 0, "data": {"type": 2, "len": 20}},
            {"id": 4, "required": 0, "video": {"mimes": ["video/mp4"]}},
        ],
    }


def media(kind: str) -> Json:
    """The media object of an impression, one that campaign 1 has a creative for."""
    return {
        "banner": {"format": [{"w": 300, "h": 250}, {"w": 970, "h": 250}], "w": 320, "h": 50, "pos": 1},
        "video": {
            "mimes": ["video/webm", "video/mp4"],
            "minduration": 5,
            "maxduration": 60,
            "protocols": [2, 3, 5],
            "w": 1920,
            "h": 1080,
        },
        "native": {"request": json.dumps(native_markup()), "ver": "1.2"},
        "audio": {"mimes": ["audio/mp4"], "minduration": 5},
    }[kind]


def request(*imps: Json, source: str = "site", **more: Json) -> Json:
    """A request for these impressions; `more` is added to it."""
    sources = {source: copy.deepcopy(_SOURCES[source])} if source else {}
    return {"id": "auction-1", "imp": list(imps), **sources, "at": 2, **more}


def imp(kind: str, number: int = 1, **more: Json) -> Json:
    return {"id": f"imp-{number}", kind: media(kind), **more}


def deal(floor: float = 0.5, **more: Json) -> Json:
    """A private marketplace with the deal that campaign 1 takes part in, and no open auction."""
    return {"private_auction": 1, "deals": [{"id": EVERYWHERE, "bidfloor": floor, "bidfloorcur": "USD", **more}]}


def complete() -> Json:
    """A request in which every checked path has a right value, but for app and dooh, which exclude site."""
    whole = imp("banner", pmp=deal(wseat=["tafe"]), bidfloor=0.5, bidfloorcur="USD", tagid="top")
    for kind in ("video", "audio", "native"):
        whole[kind] = media(kind)
    return request(
        whole,
        device={"ua": "Mozilla/5.0", "geo": {"country": "USA"}, "dnt": 0, "lmt": 0, "ip": "192.0.2.1"},
        user={"id": "u", "buyeruid": "17", "consent": "", "geo": {"country": "USA"}, "ext": {"consent": "x"}},
        regs={"coppa": 0, "gdpr": 0, "us_privacy": "1YNN", "gpp_sid": [-1], "ext": {"gdpr": 0, "us_privacy": ""}},
        test=0,
        tmax=5000,
        wseat=["tafe"],
        bseat=["other"],
        cur=["USD"],
        bcat=["IAB26"],
        badv=["bad.example"],
    )


# The families


def _case(name: str, value: Json, *statuses: int, field: str = "", nbr: int | None = None) -> Case:
    return Case(name, json.dumps(value).encode(), frozenset(statuses), field, nbr)


def _bought(rng: random.Random) -> Iterator[Case]:
    for kind in ("banner", "video", "native"):
        for source in ("site", "app", "dooh", ""):
            for at in (1, 2):
                yield _case(
                    f"{kind} in {source or 'nowhere'}, at={at}",
                    request(imp(kind, pmp=deal()), source=source) | {"at": at},
                    200,
                )
    for count in (2, 3, 10, 100):
        imps = [imp(rng.choice(("banner", "video", "native")), number, pmp=deal()) for number in range(count)]
        yield _case(f"{count} impressions", request(*imps), 200)
    yield _case("complete", complete(), 200)
    yield _case(
        "all kinds at once", request(imp("banner", video=media("video"), native=media("native"), pmp=deal())), 200
    )
    yield _case(
        "only the minimum", {"id": "1", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}, "pmp": deal(0)}]}, 200
    )
    variants: dict[str, Json] = {
        "user unknown": {"user": {"id": "nobody-knows-me"}},
        "user of ours": {"user": {"buyeruid": str(rng.randint(1, USERS))}},
        "user not ours": {"user": {"buyeruid": "999999999999"}},
        "user without names": {"user": {}},
        "country": {"device": {"geo": {"country": "USA"}}},
        "country in two letters": {"device": {"geo": {"country": "us"}}},
        "a test": {"test": 1},
        "patient": {"tmax": 10_000},
        "two currencies": {"cur": ["EUR", "USD"]},
        "our seat": {"wseat": ["x", "tafe"]},
        "another seat blocked": {"bseat": ["x"]},
        "other categories blocked": {"bcat": ["IAB25", "IAB2", ""]},
        "other domains blocked": {"badv": ["shop.example", "hop1.example", ""]},
        "device limits tracking": {"device": {"lmt": 1}, "user": {"buyeruid": "5"}},
        "device asks not to track": {"device": {"dnt": 1}, "user": {"buyeruid": "5"}},
        "GDPR with consent": {"regs": {"gdpr": 1}, "user": {"consent": tcf_consent(1, 2, 3, 4)}},
        "GDPR with consent, older place": {
            "regs": {"ext": {"gdpr": 1}},
            "user": {"ext": {"consent": tcf_consent(1, 3, 4)}},
        },
        "GDPR does not apply": {"regs": {"gdpr": 0, "coppa": 0}},
        "US opt-out": {"regs": {"us_privacy": "1YYN"}, "user": {"buyeruid": "5"}},
        "GPP applies": {"regs": {"gpp": "DBABTA~1YNY", "gpp_sid": [7]}, "user": {"buyeruid": "5"}},
        "fields unknown to OpenRTB": {"foo": {"bar": [1, {"baz": None}]}, "allimps": "yes", "ext": 5},
        "a whole number written as 300.0": {"tmax": 3000.0},
        "long id": {"id": "x" * 256},
        "unusual id": {"id": '\u00fc\U0001f600\u0000\n"<script>'},
    }
    for name, more in variants.items():
        yield _case(name, request(imp("banner", pmp=deal())) | more, 200)
    for path in sorted(path for path in CHECKED if path.count(".") == 0 and "[" not in path and path not in REQUIRED):
        yield _case(f"null for {path}", request(imp("banner", pmp=deal())) | {path: None}, 200)
    odd: dict[str, list[Json]] = {"ext": [None, "text", 98, [], {}], "secure": [None, "yes"], "tagid": [None, 5]}
    for name, values in odd.items():
        for value in values:
            yield _case(f"imp.{name} is {value!r}", request(imp("banner", pmp=deal()) | {name: value}), 200)
    for kind in ("video", "audio", "native", "banner"):
        other = "video" if kind == "banner" else "banner"
        yield _case(f"null for {kind} beside {other}", request(imp(other, pmp=deal()) | {kind: None}), 200)
    twice = json.dumps(json.dumps(native_markup()))
    for name, text in {"encoded twice": twice, "wrapped": json.dumps({"native": native_markup()})}.items():
        yield _case(f"native markup {name}", request({"id": "1", "native": {"request": text}, "pmp": deal()}), 200)


def _refused() -> Iterator[Case]:
    banner = imp("banner", pmp=deal())
    whole: list[tuple[str, int, Json]] = [
        ("children's inventory", 500, {"regs": {"coppa": 1}}),
        ("GDPR without consent", 500, {"regs": {"gdpr": 1}}),
        ("GDPR without consent, older place", 500, {"regs": {"ext": {"gdpr": 1}}, "user": {"buyeruid": "5"}}),
        ("GDPR, consent to too little", 500, {"regs": {"gdpr": 1}, "user": {"consent": tcf_consent(1, 2, 3)}}),
        ("GDPR, consent unreadable", 500, {"regs": {"gdpr": 1}, "user": {"consent": "CO_tooShort"}}),
        ("GDPR, consent is not base64", 500, {"regs": {"gdpr": 1}, "user": {"consent": "consent string \u00e9"}}),
        ("crawler", 3, {"device": {"ua": "Mozilla/5.0 (compatible; Googlebot/2.1)"}}),
        ("other seats invited", 501, {"wseat": ["a", "b"]}),
        ("our seat blocked", 501, {"bseat": ["tafe"]}),
        ("no currency of ours", 502, {"cur": ["EUR", "JPY"]}),
        ("category blocked", 506, {"bcat": ["IAB22"]}),
        ("advertiser blocked", 506, {"badv": ["SHOP1.example"]}),
        ("advertiser's parent domain blocked", 506, {"badv": ["example"]}),
        ("tmax 0", 15, {"tmax": 0}),
        ("tmax 1", 15, {"tmax": 1}),
        ("tmax of the network alone", 15, {"tmax": 19}),
    ]
    for name, nbr, more in whole:
        yield _case(name, request(banner) | more, 204, nbr=nbr)
    places: list[tuple[str, int, Json]] = [
        ("audio only", 503, imp("audio")),
        ("no size", 504, {"id": "1", "banner": {}}),
        ("sizes null and 0", 504, {"id": "1", "banner": {"format": [{"w": None, "h": 250}, {}], "w": 0, "h": 0}}),
        ("video in a format that we have not", 504, {"id": "1", "video": {"mimes": ["video/webm"]}}),
        ("video by protocols that we have not", 504, imp("video") | {"video": media("video") | {"protocols": [5, 6]}}),
        ("native that needs a film", 504, _native_needing({"video": {"mimes": ["video/mp4"]}})),
        ("native that needs a price", 504, _native_needing({"data": {"type": 6}})),
        ("floor in another currency", 502, imp("banner", bidfloor=1, bidfloorcur="EUR")),
        ("deal in another currency", 502, imp("banner", pmp=deal(bidfloorcur="EUR"))),
        ("deal of others", 502, imp("banner", pmp=deal(wseat=["somebody"]))),
        ("deal too dear", 507, imp("banner", pmp=deal(50.01))),
        ("deal unknown", 8, imp("banner", pmp={"private_auction": 1, "deals": [{"id": "unknown"}]})),
        ("size that nobody has", 8, {"id": "1", "banner": {"w": 17, "h": 19}}),
        ("film too long for its place", 8, imp("video", pmp=deal()) | {"video": media("video") | {"maxduration": 5}}),
    ]
    for name, nbr, place in places:
        yield _case(name, request(place), 204, nbr=nbr)
    yield _case("the reason that came closest", request(imp("audio", 1), imp("banner", 2, pmp=deal(99))), 204, nbr=507)


def _native_needing(asset: Json) -> Json:
    return {"id": "1", "native": {"request": json.dumps({"assets": [{"id": 1, "required": 1, **asset}]})}}


def _open(rng: random.Random) -> Iterator[Case]:
    """Sixty random requests of the open auction."""
    for number in range(60):
        kinds = [
            rng.choice(("banner", "banner", "video", "native", "audio")) for _ in range(rng.choice((1, 1, 1, 2, 5)))
        ]
        imps = [
            imp(kind, index, bidfloor=rng.choice((0, 0.1, 1, 2.5, 40)), bidfloorcur="USD")
            for index, kind in enumerate(kinds)
        ]
        more: Json = {
            "cur": ["USD"],
            "at": rng.choice((1, 2)),
            "bcat": rng.sample(["IAB1", "IAB17", "IAB22", "IAB25"], 2),
        }
        if rng.random() < 0.7:
            more["user"] = rng.choice(
                ({"buyeruid": str(rng.randint(1, USERS))}, {"id": f"foreign-{rng.randrange(9**9)}"})
            )
        if rng.random() < 0.5:
            more["device"] = {
                "geo": {"country": rng.choice(("USA", "FRA", "ATA", "TST", ""))},
                "lmt": rng.randint(0, 1),
            }
        yield _case(f"random {number}", request(*imps, source=rng.choice(("site", "app", "dooh"))) | more, 200, 204)


def _wrong() -> Iterator[Case]:
    """Each checked path with a value of each other type."""
    for path, kind in CHECKED.items():
        for wrong_kind, samples in _SAMPLES.items():
            if wrong_kind not in _FITS.get(kind, (kind,)):
                yield _mutated(path, samples[-1], f"{wrong_kind} for {path}")
    yield _mutated("imp[].native.request", "{not json", "native markup is not JSON")


def _missing() -> Iterator[Case]:
    for path in REQUIRED:
        yield _mutated(path, None, f"{path} is null")
        yield _mutated(path, _DELETE, f"{path} is missing")
    bare = {"id": "imp-1", "pmp": deal()}
    yield _case("an impression of nothing", request(bare), 400, field="imp[0]")
    yield _case("an impression of nulls", request(bare | {"banner": None, "video": None}), 400, field="imp[0]")
    yield _case("the second is wrong", request(imp("banner"), bare), 400, field="imp[1]")
    yield _case("an impression is null", request(imp("banner"), None), 400, field="imp[1]")
    yield _case("an id twice", request(imp("banner", 1), imp("video", 2), imp("banner", 1)), 400, field="imp[2].id")
    yield _case("site and app", complete() | {"app": {}}, 400, field="app")
    yield _case("app and dooh", request(imp("banner"), source="app", dooh={}), 400, field="dooh")


def _out_of_bounds() -> Iterator[Case]:
    bad: dict[str, list[Json]] = {
        "id": ["", "x" * 257],
        "imp": [[]],
        "imp[].id": [""],
        "imp[].bidfloor": [-0.01, 1e300],
        "imp[].banner.w": [-1, 100_000, 2**63, 0.5],
        "imp[].banner.format[].h": [-300, 1.25],
        "imp[].video.minduration": [-1],
        "imp[].pmp.private_auction": [2],
        "imp[].pmp.deals[].bidfloor": [-1],
        "imp[].native.request.assets": [[]],
        "imp[].native.request.assets[].title.len": [0],
        "regs.coppa": [2, -1],
        "test": [3],
        "at": [0],
        "tmax": [-1, 10**12],
    }
    for path, values in bad.items():
        for value in values:
            yield _mutated(path, value, f"{path} is {str(value)[:20]}")


def _not_a_request() -> Iterator[Case]:
    whole = json.dumps(complete()).encode()
    for name, body in {
        "nothing": b"",
        "a space": b" ",
        "cut short": whole[:-1],
        "cut in the middle": whole[: len(whole) // 2],
        "more behind it": whole + b"{}",
        "an array": b"[]",
        "a string": b'"x"',
        "a number": b"1",
        "null": b"null",
        "not UTF-8": b'{"id":"\xff"}',
        "half a surrogate pair": whole.replace(b"auction-1", b"\\ud800"),
        "NaN": whole.replace(b'"bidfloor": 0.5', b'"bidfloor": NaN'),
        "too deep": b'{"id":' + b"[" * 5000 + b"]" * 5000 + b"}",
        "a form": b"id=1&imp=2",
    }.items():
        yield Case(f"body: {name}", body, frozenset({400}), "body")


# Changing a value by its path

_DELETE: Json = object()
_TOKENS = re.compile(r"([a-z_]+)|\[\]")


def _mutated(path: str, value: Json, name: str) -> Case:
    """A complete request with `value` at `path`, in the first element of every array on the way."""
    whole = complete()
    for source in ("app", "dooh"):
        if path == source or path.startswith(f"{source}."):
            del whole["site"]
            whole[source] = copy.deepcopy(_SOURCES[source])
    field = path.replace("[]", "[0]")
    inner = "imp[].native.request."
    if path.startswith(inner):
        markup = native_markup()
        for asset in markup["assets"]:  # the wanted part in the first asset, wherever it was
            markup["assets"][0] = asset | markup["assets"][0]
        _replace(markup, path.removeprefix(inner), value)
        path, value = "imp[].native.request", json.dumps(markup)
    _replace(whole, path, value)
    return _case(name, whole, 400, field=field)


def _replace(holder: Json, path: str, value: Json) -> None:
    *way, last = [match[1] if match[1] else 0 for match in _TOKENS.finditer(path)]
    for step in way:
        holder = holder[step]
    assert isinstance(last, int) or last in holder, f"{path} is not in the complete request"
    if value is _DELETE:
        del holder[last]
    else:
        holder[last] = value
