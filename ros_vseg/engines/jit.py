# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Execution contexts, and the kernels that TensorRT for RTX compiles when an engine first runs."""
from ros_vseg.engines.cache import keep
from ros_vseg.errors import EngineError


class Contexts:
    """
    Makes the execution contexts of an engine.

    TensorRT for RTX compiles kernels at an engine's first run, for seconds: they are kept in
    ``path`` for the next start. A file of another version or GPU is refused by it, and replaced.
    Classic TensorRT has nothing to keep.
    """

    def __init__(self, engine, path):
        self._engine, self._path, self._config = engine, path, None
        config = getattr(engine, 'create_runtime_config', lambda: None)()
        if not hasattr(config, 'create_runtime_cache'):
            return
        self._config, self._kernels = config, config.create_runtime_cache()
        self._known = path.exists() and self._kernels.deserialize(path.read_bytes())
        config.set_runtime_cache(self._kernels)

    def new(self):
        """Return a new IExecutionContext, or None if there is no memory for it."""
        if self._config is None:
            return self._engine.create_execution_context()
        return self._engine.create_execution_context(self._config)

    def keep(self, log):
        """Save what was compiled so far, unless it was known; a full disk is a line in the log."""
        if self._config is None or self._known:
            return
        try:
            keep(self._path, bytes(self._kernels.serialize()))
            self._known = True
        except EngineError as error:
            log.warning('%s', error)
