"""A wall clock that jumps by days, back and forth, in every process that finds this on its path."""

import time

_time, _time_ns = time.time, time.time_ns
_JUMPS = (0, 40_000, -90_000, 400_000, -3_000_000)


def _jump() -> int:
    return _JUMPS[int(time.monotonic() / 0.7) % len(_JUMPS)]


time.time = lambda: _time() + _jump()
time.time_ns = lambda: _time_ns() + _jump() * 1_000_000_000
