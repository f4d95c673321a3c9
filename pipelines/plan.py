"""`python -m pipelines.plan`."""

import sys

from pipelines.costs.forecast import main

if __name__ == "__main__":
    sys.exit(main())
