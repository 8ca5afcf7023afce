"""``python -m mue_check``."""

from mue_check.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
