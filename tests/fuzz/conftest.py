"""Random tests try the same examples each time where CI is set, so that a change fails by its own fault; `make fuzz`
(FUZZ_FACTOR is set) tries others."""

import os

from hypothesis import settings

settings.register_profile("steady", derandomize=True, database=None, deadline=None)
settings.register_profile("other examples", settings.get_profile("default"), deadline=None)
if "FUZZ_FACTOR" in os.environ:
    settings.load_profile("other examples")
elif os.environ.get("CI"):
    settings.load_profile("steady")
