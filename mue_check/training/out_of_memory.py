"""Which errors mean that memory ran out."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, on a GPU or a CPU, or Python ran out of memory.

    That may also be the cause of another error: a graph capture that it interrupts raises another one.
    """
    cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    own = cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)
    return own or (error.__context__ is not None and is_out_of_memory(error.__context__))
