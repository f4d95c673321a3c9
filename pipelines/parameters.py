"""`python -m pipelines.parameters`."""

import sys

from pipelines.training.counting import main

if __name__ == "__main__":
    sys.exit(main())
