"""What a study would do, and what that takes on a cluster. Changes nothing."""

from ablate.planning.plan import Plan, plan
from ablate.planning.work import Work, work_of

__all__ = ["Plan", "Work", "plan", "work_of"]
