"""The part of an OpenRTB 2.6 bid request that this bidder reads, as typed objects.

Field names are OpenRTB's own (sections 3.2.1 to 3.2.29), so that a path in an error is a path in the request.
What is named here is checked strictly, also where a bid might have been possible without it: an exchange
that sends a wrong type should hear of it. Everything else in the request is ignored.
The markup request inside a Native object is JSON in a string (Native Ads 1.2, section 4); it is read here
too, and errors in it continue the path: `imp[0].native.request.assets[2].id`.

Rules over several fields: impression ids are unique, since a bid refers to them; an impression offers at
least one kind of media; a request comes from a site, an app or a screen, never from two of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import ujson

from apps.bidder.reader import Between, Length, Wrong, nested, read

# An identifier is echoed and hashed; the longest in real requests have about 100 characters.
Id = Annotated[str, Length(1, 256)]
Text = Annotated[str, Length(0, 256)]
# The buyer's and the exchange's name for a person; the longest seen in real requests has 308 characters.
Identity = Annotated[str, Length(0, 1024)]
# A user agent, a consent string or a markup request; 16 Ki characters is four times the longest seen.
LongText = Annotated[str, Length(0, 16_384)]
# A large publisher blocks a few thousand domains; the limit of the body comes first anyway.
Texts = Annotated[tuple[Text, ...], Length(0, 10_000)]
Codes = Annotated[tuple[Annotated[int, Between(0, 10_000)], ...], Length(0, 100)]
Flag = Annotated[int, Between(0, 1)]
# Five digits of pixels: auction.slot_code relies on it. Display walls stay below 20,000.
Pixels = Annotated[int, Between(0, 99_999)]
Seconds = Annotated[int, Between(0, 86_400)]
# USD a thousand impressions; no impression is worth 1,000 USD, so anything above 1,000,000 is another unit.
Money = Annotated[float, Between(0, 1_000_000)]
Milliseconds = Annotated[int, Between(0, 3_600_000)]


@dataclass(slots=True)
class Format:
    w: Pixels | None = None
    h: Pixels | None = None


@dataclass(slots=True)
class Banner:
    format: Annotated[tuple[Format, ...], Length(0, 100)] = ()
    w: Pixels | None = None
    h: Pixels | None = None


@dataclass(slots=True)
class Video:
    mimes: Texts
    minduration: Seconds = 0
    maxduration: Seconds | None = None
    protocols: Codes = ()
    w: Pixels | None = None
    h: Pixels | None = None


@dataclass(slots=True)
class Audio:
    mimes: Texts


@dataclass(slots=True)
class Title:
    len: Annotated[int, Between(1, 10_000)]


@dataclass(slots=True)
class Image:
    type: Annotated[int, Between(1, 10_000)] | None = None
    w: Pixels | None = None
    h: Pixels | None = None
    wmin: Pixels | None = None
    hmin: Pixels | None = None


@dataclass(slots=True)
class Data:
    type: Annotated[int, Between(1, 10_000)]
    len: Annotated[int, Between(0, 1_000_000)] | None = None


@dataclass(slots=True)
class Asset:
    """An element of a native advertisement; with neither title, img nor data (a video) we have none."""

    id: Annotated[int, Between(0, 2**31 - 1)]
    required: Flag = 0
    title: Title | None = None
    img: Image | None = None
    data: Data | None = None


@dataclass(slots=True)
class NativeMarkup:
    assets: Annotated[tuple[Asset, ...], Length(1, 100)]


@dataclass(slots=True)
class Native:
    request: LongText
    assets: tuple[Asset, ...] = dataclasses.field(init=False, default=())

    def __post_init__(self) -> None:
        try:
            self.assets = nested(NativeMarkup, _native_root(self.request)).assets
        except Wrong as wrong:
            raise wrong.inside("request") from None


def _native_root(text: str) -> Any:
    """The object with the assets: some encode it twice, and before 1.2 it was wrapped in `native`."""
    try:
        root = ujson.loads(text)
        if isinstance(root, str):
            root = ujson.loads(root)
    except ValueError:
        raise Wrong("must be a native markup request in JSON") from None
    if isinstance(root, dict) and isinstance(root.get("native"), dict):
        return root["native"]
    return root


@dataclass(slots=True)
class Deal:
    id: Id
    bidfloor: Money = 0.0
    bidfloorcur: Text = "USD"
    wseat: Texts = ()


@dataclass(slots=True)
class Pmp:
    private_auction: Flag = 0
    deals: Annotated[tuple[Deal, ...], Length(0, 100)] = ()


@dataclass(slots=True)
class Imp:
    id: Id
    banner: Banner | None = None
    video: Video | None = None
    audio: Audio | None = None
    native: Native | None = None
    pmp: Pmp | None = None
    bidfloor: Money = 0.0
    bidfloorcur: Text = "USD"

    def __post_init__(self) -> None:
        if self.banner is None and self.video is None and self.audio is None and self.native is None:
            raise Wrong("needs at least one of banner, video, audio and native")


@dataclass(slots=True)
class Geo:
    country: Text = ""


@dataclass(slots=True)
class Site:
    cat: Texts = ()
    sectioncat: Texts = ()
    pagecat: Texts = ()


@dataclass(slots=True)
class App:
    cat: Texts = ()
    sectioncat: Texts = ()
    pagecat: Texts = ()


@dataclass(slots=True)
class Dooh:
    id: Text = ""


@dataclass(slots=True)
class Device:
    ua: LongText = ""
    geo: Geo | None = None
    dnt: Flag = 0
    lmt: Flag = 0


@dataclass(slots=True)
class UserExt:
    consent: LongText = ""


@dataclass(slots=True)
class User:
    id: Identity = ""
    buyeruid: Identity = ""
    consent: LongText = ""
    geo: Geo | None = None
    ext: UserExt | None = None


@dataclass(slots=True)
class RegsExt:
    gdpr: Flag | None = None
    us_privacy: Text = ""


@dataclass(slots=True)
class Regs:
    coppa: Flag = 0
    gdpr: Flag | None = None
    us_privacy: Text = ""
    gpp_sid: Annotated[tuple[Annotated[int, Between(-1, 10_000)], ...], Length(0, 100)] = ()
    ext: RegsExt | None = None


@dataclass(slots=True)
class BidRequest:
    id: Id
    # No page sells more than a few dozen places at once; each costs a pass over the campaigns.
    imp: Annotated[tuple[Imp, ...], Length(1, 100)]
    site: Site | None = None
    app: App | None = None
    dooh: Dooh | None = None
    device: Device | None = None
    user: User | None = None
    regs: Regs | None = None
    test: Flag = 0
    at: Annotated[int, Between(1, 10_000)] = 2
    tmax: Milliseconds | None = None
    wseat: Texts = ()
    bseat: Texts = ()
    cur: Texts = ()
    bcat: Texts = ()
    badv: Texts = ()

    def __post_init__(self) -> None:
        first: dict[str, int] = {}
        for index, imp in enumerate(self.imp):
            if first.setdefault(imp.id, index) != index:
                raise Wrong(f"repeats imp[{first[imp.id]}].id; bids refer to it", f"imp[{index}].id")
        sources = [name for name in ("site", "app", "dooh") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise Wrong(f"cannot stand beside {sources[0]}", sources[1])


def parse(body: object) -> BidRequest:
    """Read a decoded bid request; raises `tafe.errors.BadRequest` with the path of the first wrong value."""
    return read(BidRequest, body, "body")
