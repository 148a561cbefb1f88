"""The settings of torch that a run's bits depend on, set for as long as the run lasts."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from sgbench.core.errors import InputError
from sgbench.spec import Recipe

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
"""Memory formats by their name in a recipe."""


@contextlib.contextmanager
def single_precision() -> Iterator[None]:
    """Make float32 mean float32 on every device, TensorFloat-32 off; restore the settings after."""
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution


@contextlib.contextmanager
def pinned(recipe: Recipe) -> Iterator[None]:
    """Pin the number of threads, deterministic algorithms and single precision; restore the settings after.

    With deterministic algorithms torch would also fill all new memory, for code that reads memory which it has not
    written; other code gets the same numbers without it, so it is switched off.
    """
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    new_memory: Any = torch.utils.deterministic  # mypy does not see that it has the setting
    fill = new_memory.fill_uninitialized_memory
    warn_only, benchmark = torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(recipe.deterministic)
    new_memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = not recipe.deterministic
    try:
        with single_precision():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        new_memory.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark


def compiler_options(recipe: Recipe) -> dict[str, Any]:
    """Return the options of torch.compile: for a deterministic recipe, kernels are not chosen by timing them.

    A torch that is too old for this option may choose different kernels in two processes on a GPU.

    Raises:
        InputError: If there is no C++ compiler, which torch.compile needs.
    """
    from torch._inductor import cpp_builder, exc, list_options  # takes seconds

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise InputError(
            "recipe.compiled is true, and this machine has no C++ compiler: install g++, or name another in CXX."
        ) from error
    return {"deterministic": True} if recipe.deterministic and "deterministic" in list_options() else {}


def device_of_process() -> torch.device:
    """Return the GPU of this process if there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
