"""`python -m pipelines.tune`."""

import sys

from pipelines.training.tuning import main

if __name__ == "__main__":
    sys.exit(main())
