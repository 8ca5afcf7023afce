"""The errors that mue_check raises on purpose: one base class, one line each."""


class MueCheckError(Exception):
    """Something the user asked for cannot be done; the message says what, the value, and what is allowed."""


class SpecError(MueCheckError):
    """A model or training specification that describes nothing that could be built."""


class RuleError(MueCheckError):
    """A transfer rule that does not know a role, or leads to an impossible hyperparameter."""


class DataError(MueCheckError):
    """A corpus that is missing, too short, or not made of tokens."""


class StoreError(MueCheckError):
    """A study folder that cannot be read or written."""


class ClusterError(MueCheckError):
    """A cluster that cannot be joined, or that lost a batch more often than it is begun again."""


class ClaimError(MueCheckError):
    """A claim about a router that contradicts itself, or a router that cannot be read without one."""


class JudgeError(MueCheckError):
    """Measurements that cannot be judged: a table that lacks something, or an interval that says nothing."""


class LoadError(SpecError):
    """A load of experts that is none: a negative share, too few numbers, or one that no router could reach."""


class CalibrationError(MueCheckError):
    """A calibration of the drift budget that is missing, foreign or broken."""


class TimingError(MueCheckError):
    """Timings of a device that predict nothing: it is busy, or no prices fit them."""


class UnreadableError(ClaimError):
    """What a candidate does could not be found out, which says nothing against it; the message says what to declare."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, at most 200 characters."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0][:200]
