"""`python -m pipelines.summarise`."""

import sys

from pipelines.evidence.summarising import main

if __name__ == "__main__":
    sys.exit(main())
