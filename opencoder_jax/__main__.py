"""`python -m opencoder_jax COMMAND ...`: see `cli`."""

import sys

from opencoder_jax.cli import main

sys.exit(main())
