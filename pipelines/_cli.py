"""What every command shares: how it ends. A command is an argument parser and one call."""

import argparse
import functools
import os
import sys
from collections.abc import Callable

from baselines import MethodError
from pipelines.files.errors import UserError

# Read once, when torch is loaded: threads that spin while they wait slow a run beside other work down 4 to 10 times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def parser(name: str, about: str, *, profile_file: bool = True) -> argparse.ArgumentParser:
    """The parser of `python -m pipelines.NAME`, whose help shows `about` as it stands."""
    made = argparse.ArgumentParser(
        prog=f"python -m pipelines.{name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if profile_file:
        made.add_argument("--profile-file", default="params.yaml", help="parameters (default: %(default)s)")
    return made


def add_device(to: argparse.ArgumentParser) -> None:
    """The option --device, which loads torch where it is given."""
    to.add_argument("--device", type=_device, help="cpu, cuda or cuda:N; default: the GPU if there is one")


def _device(text: str) -> str:
    import torch

    kind, _, index = text.partition(":")
    if text != "cpu" and (kind != "cuda" or not (index or "0").isdigit()):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected cpu, cuda or cuda:N")
    there = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= there:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, but torch can use {there} GPUs here; say cpu or leave it out"
        )
    return text


def command(main: Callable[[list[str] | None], int | None]) -> Callable[..., int]:
    """A command's `main`, which takes its arguments (None: those of the process), as one that gives an exit code: what
    it returns, or 0.

    A user's mistake (`UserError`, or a method that cannot be built), or a file that cannot be read or written, becomes
    one line on stderr and 1; Ctrl-C becomes one line and 130. Anything else is a fault of the suite and keeps its
    traceback.
    """

    @functools.wraps(main)
    def ended(argv: list[str] | None = None) -> int:
        try:
            code = main(argv) or 0
            sys.stdout.flush()  # what nobody reads is noticed here, not at the interpreter's end
            return code
        except BrokenPipeError as error:
            print(f"error: {error.strerror}: what reads the output, such as `head`, has ended", file=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (UserError, MethodError) as error:
            print(f"error: {error}", file=sys.stderr)
        except OSError as error:
            if error.errno is not None and error.filename is None:
                raise
            # One without a number was raised here, and its message says all.
            print(f"error: {error if error.errno is None else f'{error.filename}: {error.strerror}'}", file=sys.stderr)
        except KeyboardInterrupt:
            print("interrupted; run the same command again to go on", file=sys.stderr)
            return 130
        return 1

    return ended
