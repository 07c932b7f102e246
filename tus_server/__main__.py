"""`python -m tus_server` is `tus-server`."""

from tus_server.cli import main

if __name__ == "__main__":
    main()
