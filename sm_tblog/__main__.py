"""``python -m sm_tblog`` is ``sm-tblog``."""

from sm_tblog.cli import main

if __name__ == "__main__":
    main()
