"""`python -m pipelines.train`."""

import sys

from pipelines.training.runner import main

if __name__ == "__main__":
    sys.exit(main())
