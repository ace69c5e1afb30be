"""A service whose only worker starts at once the first time, and waits in every later start until it is let go."""

from tests.service import ECHO

WAITS_IN_RESTART = ECHO.replace(
    "def forward",
    """def __init__(self):
            import pathlib, sys
            marker = pathlib.Path(sys.argv[1] + ".started")
            if marker.exists():
                open(sys.argv[1]).read()  # a FIFO: until somebody writes
            marker.touch()

        def forward""",
)
