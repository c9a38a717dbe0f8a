"""A rehearsal of a suite: every cell, with its real method and settings, on stand-ins of its models, in minutes."""
