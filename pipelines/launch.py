"""`python -m pipelines.launch`."""

import sys

from pipelines.launching.launcher import main

if __name__ == "__main__":
    sys.exit(main())
