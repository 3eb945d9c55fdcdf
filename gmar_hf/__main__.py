"""`python -m gmar_hf` is `gmar-hf`."""

from gmar_hf.cli import main

if __name__ == "__main__":
    main()
