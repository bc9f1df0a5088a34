"""The exceptions a person sees as a single line."""


class UserError(Exception):
    """Cannot run here: the message says what, what was expected, what was got, and the way on."""


class MediaError(UserError):
    """One picture or video file that cannot be read, or is not what was asked: callers count it and go on."""
