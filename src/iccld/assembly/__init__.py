"""Config -> objects: data sets, networks, the parts of a method.  Configuration stops here: every room below takes plain arguments."""
