"""`python -m tafe.doctor MODULE:APP FILE`: the process that loads the application; it answers into the file."""

from __future__ import annotations

import sys

from tafe.doctor.probe import main

main(sys.argv[1], sys.argv[2])
