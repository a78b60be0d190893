"""The command line with the hostile stages in its table: python with_hostile_stages.py [arguments of optimizer]."""

import hostile

from optimizer.__main__ import main
from optimizer.stages import STAGES

STAGES.update(hostile.STAGES)
main()
