"""Which errors mean that the memory did not suffice."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, on a GPU or a CPU, or Python could not get the memory that it asked for.

    Also where that broke a capture off, which then ends with an error of its own.
    """
    cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    own = cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)
    return own or (error.__context__ is not None and is_out_of_memory(error.__context__))
