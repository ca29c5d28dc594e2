"""Config -> objects: data sets, networks, the parts of a method.  Configuration stops here: every room below takes plain arguments."""

from iccld.assembly.objects import unmet_need

__all__ = ["unmet_need"]
