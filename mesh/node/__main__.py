"""The console script. Ctrl-C while the rest is still being imported is no traceback either."""

import sys

from mesh.node import INTERRUPTED


def main() -> None:
    try:
        from mesh.node.cli import app  # noqa: PLC0415  # it takes a good part of a second

        sys.exit(app.run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
