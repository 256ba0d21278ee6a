"""`python -m ablate`: the command line; in a Ray job its results are marked in the log."""

from __future__ import annotations

import os
import sys
from typing import TextIO, cast

from ablate.job_output import MARKING, MarkedLines


def run() -> None:
    """Run the command line. A Python without ablate's dependencies is one line, exit code 2."""
    if os.environ.get(MARKING):
        sys.stdout = cast(TextIO, MarkedLines(sys.stdout))
    try:
        from ablate.cli import main
    except ImportError as error:
        print(
            f"ablate: {sys.executable} must have what ablate needs, got: {error}; name another "
            "Python (`submit --python`), or have it installed (`submit --install`)",
            file=sys.stderr,
        )
        sys.exit(2)
    main()


if __name__ == "__main__":
    run()
