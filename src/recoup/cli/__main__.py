"""``python -m recoup.cli``."""

import sys

from recoup.cli.main import main

sys.exit(main())
