"""Workspaces on object stores: a store's objects, their mirror on each node, one driver."""

from ablate.stores.driver import driving
from ablate.stores.following import Following
from ablate.stores.mirror import (
    JOURNAL,
    entries,
    fetched,
    forget,
    here,
    is_mirrored,
    is_vouched,
    kept,
    location,
    machine_mark,
    may_write,
    named,
    open_mirror,
    pull,
    settled,
    stored_bytes,
)
from ablate.stores.objects import TEMPORARY_PREFIX, take_lock

__all__ = [
    "Following", "JOURNAL", "TEMPORARY_PREFIX", "driving", "entries", "fetched", "forget", "here",
    "is_mirrored", "is_vouched", "kept", "location", "machine_mark", "may_write", "named",
    "open_mirror", "pull", "settled", "stored_bytes", "take_lock",
]  # fmt: skip
