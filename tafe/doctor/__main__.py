"""`python -m tafe.doctor MODULE:APP FD`: the process that loads the application; it answers into the descriptor."""

from __future__ import annotations

import sys

from tafe.doctor.probe import main

main(sys.argv[1], int(sys.argv[2]))
