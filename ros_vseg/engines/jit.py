# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Execution contexts, and the kernels that TensorRT for RTX compiles when an engine first runs."""
import logging
from pathlib import Path
from typing import Any
import weakref

from ros_vseg.engines.cache import keep
from ros_vseg.errors import EngineError
from ros_vseg.gpu import failures
from ros_vseg.gpu.cuda import Buffer, Gpu


class Contexts:
    """
    Makes the execution contexts of an engine. They share their working memory: one runs at a time.

    TensorRT for RTX compiles kernels at an engine's first run, for seconds: they are kept for the
    next start. A file of another version or GPU is refused by it, and replaced. Classic TensorRT
    has nothing to keep.

    Args:
        engine: TensorRT's ICudaEngine.
        path: file for the kernels that TensorRT for RTX compiles.
        user_managed: TensorRT's ExecutionContextAllocationStrategy by which we give a context its
            working memory, so that none is allocated while frames run; None: TensorRT allocates.
    """

    def __init__(self, engine: Any, path: Path, user_managed: Any = None) -> None:
        self._engine, self._path, self._strategy = engine, path, user_managed
        self._memory: weakref.ref[Buffer] | None = None     # ends with the last context's user
        self._config: Any = None
        failures.protect(self, engine)
        config: Any = getattr(engine, 'create_runtime_config', lambda: None)()
        if not hasattr(config, 'create_runtime_cache'):
            return
        self._config, self._kernels = config, config.create_runtime_cache()
        self._known = path.exists() and self._kernels.deserialize(path.read_bytes())
        config.set_runtime_cache(self._kernels)
        if user_managed is not None:
            config.set_execution_context_allocation_strategy(user_managed)

    def new(self, gpu: Gpu) -> tuple[Any, Buffer | None]:
        """
        Return a new IExecutionContext and the working memory, which has to live as long.

        Raises:
            DeviceError: there is no memory for it.
        """
        with gpu.lock:
            try:
                context = self._create()
            except RuntimeError as error:
                raise failures.from_library('TensorRT made no context', str(error)) from error
            if context is None:
                free, total = gpu.memory()
                raise failures.from_library(
                    f'no GPU memory for another camera: {free / 1e6:.0f} of {total / 1e6:.0f} MB '
                    'are free', 'out of memory')
            size = self._engine.device_memory_size_v2 if self._strategy is not None else 0
            if not size:
                return context, None
            memory = self._memory() if self._memory else None
            if memory is None:
                memory = gpu.allocate(size)
                self._memory = weakref.ref(memory)
            context.set_device_memory(memory.address, size)
            return context, memory

    def _create(self) -> Any:
        if self._config is not None:
            return self._engine.create_execution_context(self._config)
        if self._strategy is not None:
            return self._engine.create_execution_context(self._strategy)
        return self._engine.create_execution_context()

    def keep(self, log: logging.Logger) -> None:
        """Save what was compiled so far, unless it was known; a full disk is a line in the log."""
        if self._config is None or self._known:
            return
        try:
            keep(self._path, bytes(self._kernels.serialize()))
            self._known = True
        except EngineError as error:
            log.warning('%s', error)
