"""The one exception that means "the user can fix this": the runner prints its message as one line and exits with status 1."""


class PolyampError(Exception):
    """Bad input from outside the program. Its message says what is wrong and what to do."""


class AudioError(PolyampError):
    """An audio file that cannot be used."""


class CheckpointError(PolyampError):
    """A checkpoint that is missing, damaged or of another shape."""


class DataError(PolyampError):
    """A data set, TFRecord or label file that cannot be used."""


class HParamsError(PolyampError):
    """An unknown, mistyped or out-of-range hyperparameter."""
