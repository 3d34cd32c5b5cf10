"""``python -m benchmark`` is ``generalist-bench``."""

from benchmark.cli import main

main()
