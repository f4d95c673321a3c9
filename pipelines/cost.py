"""`python -m pipelines.cost`."""

import sys

from pipelines.costs.costing import main

if __name__ == "__main__":
    sys.exit(main())
