"""Which rollout is next, where it is played, whether a failed one gets a new attempt, and when to stop (pure)."""

from realwork.schedule.environment_plan import EnvironmentProgress, is_satisfied
from realwork.schedule.order import Schedule
from realwork.schedule.placement import Place, Placement

__all__ = ["EnvironmentProgress", "Place", "Placement", "Schedule", "is_satisfied"]
