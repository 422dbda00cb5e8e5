"""For all tests: sums that do not depend on threads, also in a process that uses torch before it loads a model."""

from elastictok_cli.models import precision

precision.forbid_sums_by_threads()
