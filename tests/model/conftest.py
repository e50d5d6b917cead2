"""The model is a module of its own, which tests and replays import by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
