"""The errors that mue_check raises on purpose. Their messages have one line."""


class MueCheckError(Exception):
    """A request cannot be fulfilled. The message names what is wrong, the value, and what is allowed."""


class SpecError(MueCheckError):
    """A specification of a model or a training that cannot be built."""


class RuleError(MueCheckError):
    """A transfer rule that does not know a role, or that gives an impossible hyperparameter."""


class DataError(MueCheckError):
    """A corpus that is missing, too short, or not made of tokens."""


class StoreError(MueCheckError):
    """A study folder that cannot be read or written."""


class ClusterError(MueCheckError):
    """A cluster that cannot be joined, or that lost a batch more often than batches are retried."""


class ClaimError(MueCheckError):
    """A claim about a router that contradicts itself, or a router that cannot be read without one."""


class JudgeError(MueCheckError):
    """Measurements that cannot be judged, such as an incomplete table or an unbounded interval."""


class LoadError(SpecError):
    """A load of experts that is invalid (a negative share, too few numbers) or that no router could reach."""


class CalibrationError(MueCheckError):
    """A calibration of the drift budget that is missing, broken, or a different kind of file."""


class TimingError(MueCheckError):
    """Timings from which nothing can be predicted: the device is busy, or no prices fit them."""


class UnreadableError(ClaimError):
    """Something about a candidate could not be determined. The message says what to declare. This is not a failure."""
