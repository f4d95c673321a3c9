"""`python -m pipelines.pretrain`."""

import sys

from pipelines.training.pretraining import main

if __name__ == "__main__":
    sys.exit(main())
