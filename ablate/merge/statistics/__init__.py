"""What some merges ask of each member beside its parameters, gathered once per model."""

from ablate.merge.statistics.files import read_statistics, write_statistics
from ablate.merge.statistics.fisher_diagonal import fisher_diagonal
from ablate.merge.statistics.gram_matrices import Grams, gram_matrices

__all__ = ["Grams", "fisher_diagonal", "gram_matrices", "read_statistics", "write_statistics"]
