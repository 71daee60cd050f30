"""Runs the command line: ``python -m sm_tblog`` is the same as ``sm-tblog``."""

from sm_tblog.cli import main

if __name__ == "__main__":
    main()
