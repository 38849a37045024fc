"""`python -m adubench` is the same as `adubench`."""

from adubench.cli import main

if __name__ == "__main__":
    main()
