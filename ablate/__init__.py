"""ablate: which data should the model train on? A Ray-based data-ablation engine.

`import ablate` loads neither torch nor ray: names are fetched at their first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablate.cluster.jobs import Job
    from ablate.engine import prepare, report, run, score, search, train, validate
    from ablate.errors import AblateError, UserError
    from ablate.mixture import Mixture
    from ablate.models.pool import ModelPool
    from ablate.planning import plan
    from ablate.resources import Cluster, load_cluster
    from ablate.search.leaderboard import Leaderboard
    from ablate.study import Study, load_study
    from ablate.submitting import submit
    from ablate.validate.agreement import Agreement

__version__ = "0.1.0"

_HOMES = {
    "AblateError": "ablate.errors",
    "Agreement": "ablate.validate.agreement",
    "UserError": "ablate.errors",
    "Cluster": "ablate.resources",
    "load_cluster": "ablate.resources",
    "Leaderboard": "ablate.search.leaderboard",
    "Mixture": "ablate.mixture",
    "ModelPool": "ablate.models.pool",
    "Study": "ablate.study",
    "load_study": "ablate.study",
    "plan": "ablate.planning",
    "prepare": "ablate.engine",
    "run": "ablate.engine",
    "score": "ablate.engine",
    "Job": "ablate.cluster.jobs",
    "submit": "ablate.submitting",
}
_VERB_PACKAGES = ("report", "search", "train", "validate")

__all__ = [
    "AblateError",
    "Agreement",
    "Cluster",
    "Job",
    "Leaderboard",
    "Mixture",
    "ModelPool",
    "Study",
    "UserError",
    "__version__",
    "load_cluster",
    "load_study",
    "plan",
    "prepare",
    "report",
    "run",
    "score",
    "search",
    "submit",
    "train",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Return a public name from its module."""
    if name in _VERB_PACKAGES:
        return importlib.import_module(f"ablate.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'ablate' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
