"""The output-space proxy: mixtures scored from the units' probabilities of every token.

loss(lambda) = -mean_t log sum_u lambda_u p_u(t): no merge, no forward pass, convex in lambda.
Sources: Mixture of Data Experts (arXiv 2502.15950), MixMin (arXiv 2502.10510).
"""

from ablate.evaluate.ensemble.derivatives import gradient
from ablate.evaluate.ensemble.optimum import Constraints, Optimum
from ablate.evaluate.ensemble.scoring import group_losses, group_tokens, losses
from ablate.evaluate.ensemble.sparse import optimum
from ablate.evaluate.ensemble.subsets import every_subset, subset_losses
from ablate.evaluate.ensemble.values import Ensemble, build_ensemble, by_partition

__all__ = [
    "Constraints",
    "Ensemble",
    "Optimum",
    "build_ensemble",
    "by_partition",
    "every_subset",
    "gradient",
    "group_losses",
    "group_tokens",
    "losses",
    "optimum",
    "subset_losses",
]
