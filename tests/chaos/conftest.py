"""The storms' package is found beside the tests; their short form is part of every run."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
