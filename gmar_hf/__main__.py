"""`python -m gmar_hf` is `gmar-hf`."""

from .cli import main

if __name__ == "__main__":
    main()
