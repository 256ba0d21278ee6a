"""A search whose trials end in any order, for tests."""

from __future__ import annotations

import random
from collections.abc import Callable

from ablate.mixture import Mixture
from ablate.search.conversation import Conversation, Pause


def converse(
    talk: Conversation, value: Callable[[Mixture], float | None], workers: int, order: int
) -> tuple[Mixture, ...]:
    """Return what is proposed when `workers` trials are open and end in an order drawn from `order`."""
    rng, running = random.Random(order), []
    while True:
        step = talk.next() if len(running) < workers else Pause.WAIT
        if isinstance(step, Mixture):
            running.append(step)
        elif step is Pause.DONE and not running:
            return talk.asked
        else:
            done = running.pop(rng.randrange(len(running)))
            talk.result(done, value(done))
