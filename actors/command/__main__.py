"""`python -m actors.command` is the command `understudy`."""

from __future__ import annotations

from actors.command import main

if __name__ == "__main__":
    main()
