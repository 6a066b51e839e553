"""May this bidder use the person's data, and may it bid at all?

Three answers. FULL: look the user up. ANONYMOUS: bid without knowing who it is (the device limits tracking,
or a US opt-out of sale). NONE: do not bid (children's inventory; or the GDPR applies and consent is missing,
since even serving and counting an advertisement needs a legal basis there).

A consent string is read as IAB TCF v2 (its core string): base64url without padding, bit fields from the left,
24 purpose bits from bit 152. Pure.
Limits: vendor bits and publisher restrictions are not read, and a GPP string is not decoded: a GPP section
that applies counts as an opt-out.
"""

from __future__ import annotations

import base64
import binascii
import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apps.bidder.openrtb import BidRequest

_PURPOSES_AT_BIT = 152
# 1: store on a device, 3: make a profile, 4: select advertisements by profile. Retargeting is these three.
_PURPOSES = (1, 3, 4)


class Use(enum.Enum):
    """What may be done with the person's data."""

    FULL = "full"
    ANONYMOUS = "anonymous"
    NONE = "none"


def allowed_use(request: BidRequest) -> Use:
    """Judge the request's regulations, consent and device settings, the strictest first."""
    regs, user, device = request.regs, request.user, request.device
    us_privacy, gpp_applies = "", False
    if regs is not None:
        if regs.coppa:
            return Use.NONE
        gdpr = regs.gdpr if regs.gdpr is not None else regs.ext.gdpr if regs.ext else None
        if gdpr:
            consent = user.consent or (user.ext.consent if user.ext else "") if user else ""
            if not _consents(consent):
                return Use.NONE
        us_privacy = regs.us_privacy or (regs.ext.us_privacy if regs.ext else "")
        gpp_applies = any(section > 0 for section in regs.gpp_sid)
    limited = device is not None and (device.lmt or device.dnt)
    # US Privacy: version, notice given, opted out of sale, ... as in "1YYN"
    if limited or gpp_applies or us_privacy[2:3].upper() == "Y":
        return Use.ANONYMOUS
    return Use.FULL


def _consents(text: str) -> bool:
    """Whether a TCF string consents to every purpose that retargeting needs; False if it cannot be read."""
    core = text.partition(".")[0]
    try:
        raw = base64.b64decode(core + "=" * (-len(core) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return False
    if len(raw) * 8 < _PURPOSES_AT_BIT + 24 or raw[0] >> 2 != 2:
        return False
    purposes = int.from_bytes(raw[_PURPOSES_AT_BIT // 8 : _PURPOSES_AT_BIT // 8 + 3], "big")
    return all(purposes >> (24 - purpose) & 1 for purpose in _PURPOSES)
