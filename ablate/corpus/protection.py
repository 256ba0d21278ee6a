"""Text that training must not repeat, and the check of a document against it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ablate.corpus.ngrams import Grams, find

OWN_HELDOUT = "its own held-out split"


@dataclass(frozen=True, kw_only=True)
class Protected:
    """What training text must not repeat; all arrays are sorted n-gram hashes.

    `everything` joins the domains; `heldout` is by partition, `every_heldout` joins it.
    """

    ngram: int
    max_overlap: float
    domains: dict[str, Grams]
    everything: Grams
    heldout: dict[str, Grams]
    every_heldout: Grams


def contaminated_by(grams: Grams, protected: Protected, heldout: Grams | None) -> tuple[str, ...]:
    """Return the protected texts in each of which too many of a document's n-grams stand."""
    limit = protected.max_overlap
    own = find(grams, heldout)[0] if heldout is not None else np.zeros(len(grams), np.bool_)
    if (own | find(grams, protected.everything)[0]).mean() <= limit:
        return ()
    causes = [
        f"evaluation domain '{name}'"
        for name, domain in protected.domains.items()
        if find(grams, domain)[0].mean() > limit
    ]
    return tuple(causes + [OWN_HELDOUT] * bool(own.mean() > limit))
