"""`python -m pipelines.params`."""

import sys

from pipelines.profile.schema import main

if __name__ == "__main__":
    sys.exit(main())
