"""The one exception a person sees as a single line."""


class UserError(Exception):
    """Cannot run here: the message says what, what was expected, what was got, and the way on."""
