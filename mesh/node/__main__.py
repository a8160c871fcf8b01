"""The console script. Ctrl-C during its imports ends it without a traceback too."""

import sys

from mesh.node import INTERRUPTED


def main() -> None:
    """Runs the command of the process and exits with its code."""
    try:
        from mesh.node.cli import app  # noqa: PLC0415  # importing takes a good part of a second

        sys.exit(app.run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
