"""`python -m pipelines.pack`."""

import sys

from pipelines.launching.packing import main

if __name__ == "__main__":
    sys.exit(main())
