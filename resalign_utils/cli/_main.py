"""One call of ``resalign``: the verb is imported and done, what it refuses becomes a sentence and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ._parser import parser
from ._refused import Refused

DONE, REFUSED, INTERRUPTED = 0, 1, 130  # argparse ends with 2 where the call itself is wrong
SAID = (Refused, ValueError, TypeError, OSError, RuntimeError, ArithmeticError, ImportError)  # with a sentence in them


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: what stands behind ``resalign``; the process's own arguments if not given.

    Returns:
        0 done, 1 refused, with a sentence on stderr, 130 interrupted.

    Raises:
        SystemExit: with 2 for a call that cannot be read, with 0 after ``--help`` and ``--version``.
    """
    args = parser().parse_args(argv)
    try:
        import_module(f"._{args.verb}", __package__).run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # what reads stdout has stopped: say no more, also when Python flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except KeyboardInterrupt:
        print("resalign: interrupted, nothing was written.", file=sys.stderr)
        return INTERRUPTED
    except SAID as error:
        if args.traceback:
            raise
        text = str(error) or type(error).__name__
        print(f"resalign: {text}", file=sys.stderr)
        if not isinstance(error, Refused | ValueError | OSError):
            print(f"({type(error).__name__}; --traceback shows where it was raised.)", file=sys.stderr)
        return REFUSED
    return DONE
