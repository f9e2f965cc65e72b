"""`python -m achelous_gateway`."""

import sys

from achelous_gateway.main import main

sys.exit(main())
