"""Errors that a user can cause. The command line prints them as one line, without a traceback."""


class StreamposeError(ValueError):
    """Something the user can mend; the text says what is wrong, where, and what to do."""


class ConfigError(StreamposeError):
    """A configuration or skeleton file is wrong."""


class VideoError(StreamposeError):
    """A video or live source cannot be read."""


class StoreError(StreamposeError):
    """A store is missing, damaged or newer than this version."""


class BundleError(StreamposeError):
    """An exported model is missing, damaged or does not fit."""


class TrainingError(StreamposeError):
    """Training cannot go on (no data, NaN losses, a run that does not fit its configuration)."""
