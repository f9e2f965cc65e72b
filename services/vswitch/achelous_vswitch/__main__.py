"""`python -m achelous_vswitch`: the agent of one host."""

import sys

from achelous_vswitch.main import main

sys.exit(main())
