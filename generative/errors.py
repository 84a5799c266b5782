"""The one exception that a user is meant to read."""


class PipelineError(Exception):
    """Something outside the code is wrong: one sentence names the culprit and the way out."""
