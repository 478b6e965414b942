"""``python -m spikedistill``."""

from spikedistill.cli import main

main()
