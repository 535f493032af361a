"""Many runs: train and measure every configuration of a list, in this process or in several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from .runs import Run, RunConfig, load_or_train


def sweep(
    configs: Sequence[RunConfig],
    measure: Callable[[Run], Any] | Sequence[Callable[[Run], Any]],
    *,
    processes: int = 1,
    **where: Any,
) -> Iterator[Any]:
    """Train every configuration, or take it from the cache, and measure it.

    Every finished run stays in the cache, and an unfinished one has its checkpoint: a sweep that was killed and is
    started again trains only what is missing.

    Args:
        configs: the runs.
        measure: from a run to whatever is to be known of it. With several processes it must be a function of a module
            that can be imported, and what it returns must be picklable. A sequence has one for each configuration.
        processes: how many runs at a time, each in a process of its own with one thread; small networks train faster
            in two processes of one thread than in one of two. With 1, everything happens here.
        where: as in :func:`load_or_train`: ``root``, ``data_root``, ``device``.

    Yields:
        What ``measure`` returned, in the order of ``configs``, as soon as it is there.

    Raises:
        ValueError: fewer than one process, or not as many measurements as configurations.
        RuntimeError: a run or its measurement failed; the text says which configuration, the cause is chained to it.
            Runs that have not begun are cancelled; finished ones stay in the cache.
    """
    if processes < 1:
        raise ValueError(f"processes must be at least 1; got {processes!r}.")
    measures = [measure] * len(configs) if callable(measure) else [*measure]
    if len(measures) != len(configs):
        raise ValueError(f"Expected one measurement for each of {len(configs)} configurations; got {len(measures)}.")
    progress = tqdm(total=len(configs), desc="sweep", unit="run", leave=False, delay=1)
    with progress:
        for result in _results([*zip(configs, measures, strict=True)], processes, where):
            progress.update()
            yield result


def _results(
    wanted: Sequence[tuple[RunConfig, Callable[[Run], Any]]], processes: int, where: dict[str, Any]
) -> Iterator[Any]:
    if processes == 1:
        for config, measure in wanted:
            yield _named(config, partial(_one, config, measure, where))
        return
    context = multiprocessing.get_context("spawn")  # a forked child of a process with threads may hang
    with ProcessPoolExecutor(processes, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures: list[Future[Any]] = [pool.submit(_one, config, measure, where) for config, measure in wanted]
        try:
            for (config, _), future in zip(wanted, futures, strict=True):
                yield _named(config, future.result)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one(config: RunConfig, measure: Callable[[Run], Any], where: dict[str, Any]) -> Any:
    return measure(load_or_train(config, **where))


def _named(config: RunConfig, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        raise RuntimeError(f"This run of the sweep failed: {config} ({type(error).__name__}: {error}).") from error
