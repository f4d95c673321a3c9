"""`python -m pipelines.prepare`."""

import sys

from pipelines.data.preparation import main

if __name__ == "__main__":
    sys.exit(main())
