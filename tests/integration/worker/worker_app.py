"""What ``tidegate worker worker_app:gate`` imports."""

from worker_tasks import register

from tidegate import Tidegate

gate = register(Tidegate())
