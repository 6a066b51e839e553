"""`python -m tafe` is the same as `tafe`."""

from tafe.cli import main

if __name__ == "__main__":
    main()
