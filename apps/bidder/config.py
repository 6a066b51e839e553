"""The bidder's settings, from the environment, read once when the application is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

# Known to everybody who reads this file, so with it anybody can report wins; web.py warns about it.
DEVELOPMENT_KEY = "development only: set BIDDER_WIN_KEY"
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Config:
    """`database_url`: mysql:// or sqlite:///. `public_url`: where exchanges reach us, no final slash."""

    database_url: str
    public_url: str
    win_key: bytes

    @property
    def is_development_key(self) -> bool:
        return self.win_key == DEVELOPMENT_KEY.encode()

    @classmethod
    def from_environ(cls) -> Config:
        """BIDDER_DATABASE_URL, BIDDER_PUBLIC_URL and BIDDER_WIN_KEY; empty counts as unset."""
        return cls(
            database_url=os.environ.get("BIDDER_DATABASE_URL") or default_database_url(),
            public_url=(os.environ.get("BIDDER_PUBLIC_URL") or "http://127.0.0.1:8000").rstrip("/"),
            win_key=(os.environ.get("BIDDER_WIN_KEY") or DEVELOPMENT_KEY).encode(),
        )


def default_database_url() -> str:
    """A SQLite file in the checkout's run folder, wherever the command is started."""
    return f"sqlite:///{quote(str(CHECKOUT / '.run' / 'bidder.db'))}"
