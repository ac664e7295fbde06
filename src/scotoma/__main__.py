"""`python -m scotoma` is the `scotoma` command, for launchers that start modules."""

import sys

from scotoma.cli import main

if __name__ == "__main__":
    sys.exit(main())
