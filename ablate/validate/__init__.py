"""Validation: which mixtures to train for real, and how far proxies agree with what they lose.

`ablate.validate(study)` runs it.
"""

from ablate.verb_package import make_callable

make_callable(__name__)
