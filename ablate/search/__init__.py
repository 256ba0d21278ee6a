"""Search: space, objective, algorithms, and the scores. `ablate.search(study)` runs it."""

from ablate.verb_package import make_callable

make_callable(__name__)
