"""Work for another process, in a module that imports next to nothing, so that the process starts at once."""

from __future__ import annotations

import os
import time


def errand(what: str) -> str:
    """Done, or not done in one of three ways."""
    if what == "crash":
        os._exit(7)
    if what == "hang":
        time.sleep(60)
    if what == "raise":
        raise ValueError("no")
    return what.upper()
