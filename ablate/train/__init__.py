"""Training: recipe, batches, and the loop over DeepSpeed. `ablate.train(study)` runs it."""

from ablate.verb_package import make_callable

make_callable(__name__)
