"""The tables, for MySQL, MariaDB and SQLite.

users, user_segments     who has looked at what (a segment is a set of products or a page of an advertiser)
campaigns, creatives     what is advertised to whom, and in which formats
deliveries               wins and money by user, UTC day and campaign; user 0 is the sum over all users
wins                     each win once; its key is what makes a repeated notice harmless
fill_state               what scripts/fill has put in, written last

Both engines keep a row in its primary key's tree (InnoDB always, SQLite by WITHOUT ROWID), so a user's segments
and a user's deliveries of a day are each one range of neighbouring rows.
`creatives` repeats its campaign's segment, because then one index finds the creatives of a segment that fit a slot.
Identifiers and names are ASCII, money is whole micro- or nano-dollars, times are Unix seconds.
"""

from __future__ import annotations

TABLES = {
    "users": "id BIGINT NOT NULL, PRIMARY KEY (id)",
    "user_segments": "user_id BIGINT NOT NULL, segment_id INT NOT NULL, PRIMARY KEY (user_id, segment_id)",
    "campaigns": """
        id INT NOT NULL, segment_id INT NOT NULL, active INT NOT NULL, country VARCHAR(3) NOT NULL,
        price_micros BIGINT NOT NULL, daily_budget_micros BIGINT NOT NULL, daily_cap INT NOT NULL,
        cat VARCHAR(16) NOT NULL, domain VARCHAR(64) NOT NULL, deal_id VARCHAR(64) NOT NULL,
        context_cat VARCHAR(16) NOT NULL, PRIMARY KEY (id)""",
    "creatives": """
        id INT NOT NULL, campaign_id INT NOT NULL, segment_id INT NOT NULL, slot BIGINT NOT NULL,
        w INT NOT NULL, h INT NOT NULL, duration_s INT NOT NULL, PRIMARY KEY (id)""",
    "deliveries": """
        user_id BIGINT NOT NULL, day INT NOT NULL, campaign_id INT NOT NULL, wins INT NOT NULL,
        spent_nanos BIGINT NOT NULL, PRIMARY KEY (user_id, day, campaign_id)""",
    "wins": """
        bid_id CHAR(32) NOT NULL, campaign_id INT NOT NULL, user_id BIGINT NOT NULL, price_micros BIGINT NOT NULL,
        won_at_s BIGINT NOT NULL, PRIMARY KEY (bid_id)""",
    "fill_state": "contents VARCHAR(64) NOT NULL, PRIMARY KEY (contents)",
}
INDEXES = ("CREATE INDEX creatives_by_segment ON creatives (segment_id, slot)",)

_SUFFIX = {
    "sqlite": "WITHOUT ROWID",
    "mysql": "ENGINE=InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin",
}
# Hold a row until the transaction ends; SQLite's transactions hold the whole file.
_ROW_LOCK = {"sqlite": "", "mysql": "FOR UPDATE"}
# Both count up a row or make it; the engines share no syntax for that.
_ON_CONFLICT = {
    "sqlite": "ON CONFLICT (user_id, day, campaign_id) DO UPDATE SET",
    "mysql": "ON DUPLICATE KEY UPDATE",
}


def dialect(database_url: str) -> str:
    """`sqlite` or `mysql`, from the URL's scheme."""
    return "sqlite" if database_url.startswith("sqlite:") else "mysql"


def create_statements(dialect: str) -> list[str]:
    """One CREATE TABLE a table."""
    return [f"CREATE TABLE {name} ({columns}) {_SUFFIX[dialect]}" for name, columns in TABLES.items()]


def drop_statements() -> list[str]:
    """Forget everything, the mark of a complete fill first."""
    return [f"DROP TABLE IF EXISTS {name}" for name in reversed(TABLES)]


def lock_user(dialect: str) -> str:
    """Find a user and keep others from changing it; parameter: id."""
    return f"SELECT id FROM users WHERE id = %s {_ROW_LOCK[dialect]}"


def count_delivery(dialect: str) -> str:
    """Add a win to a row of `deliveries`; parameters: user, day, campaign, nanos, nanos again."""
    return (
        "INSERT INTO deliveries (user_id, day, campaign_id, wins, spent_nanos) VALUES (%s, %s, %s, 1, %s) "
        f"{_ON_CONFLICT[dialect]} wins = wins + 1, spent_nanos = spent_nanos + %s"
    )
