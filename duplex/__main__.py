"""`python -m duplex` is the command `duplex`."""

from duplex.cli import main

if __name__ == "__main__":
    main()
