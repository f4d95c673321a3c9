"""`python -m pipelines.explain`."""

import sys

from pipelines.evidence.explaining import main

if __name__ == "__main__":
    sys.exit(main())
