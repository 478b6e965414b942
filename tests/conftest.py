"""For all tests: one thread a process, because the suite itself runs one process a processor."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
