"""Everything Ray: what joins it, the actors that run on it, and the driver that keeps them busy.

Ray reads these switches when it is imported, so they are set before: its uv hook would ship the whole working directory
to every worker, and its usage report would leave the machine.
"""

import os

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
