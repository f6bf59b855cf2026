# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How a node's process begins and ends: arguments, --help, ROS, signals, errors in one line."""
import argparse
from collections.abc import Callable, Sequence
import sys
from typing import Any, NamedTuple, TYPE_CHECKING

from ros_vseg import interrupts
from ros_vseg.errors import VsegError

if TYPE_CHECKING:
    from ros_vseg.nodes.parameters import Parameter


class Program(NamedTuple):
    """
    A node as a program.

    name: of the executable; about: for --help; table: its parameters; positional: the parameter
    that the one argument without a name sets; run: from rclpy parameters that override the
    command line's to the exit code.
    """

    name: str
    about: str
    table: 'Sequence[Parameter]'
    positional: str
    run: Callable[[list[Any]], int]


def run(load: Callable[[], Program], args: Sequence[str] | None = None) -> int:
    """
    Run a program and end the process with its exit code: 1, with one line, for a VsegError.

    ``load`` imports what takes time; a Ctrl-C meanwhile ends the process without a traceback.
    """
    interrupts.end_at_once()
    program = load()
    import rclpy
    from rclpy.parameter import Parameter as Override
    argv = list(sys.argv if args is None else args)
    value = _parse(program, _plain(argv[1:]))
    interrupts.raise_once()
    try:
        _init(argv)
        code = program.run([] if value is None else [Override(program.positional, value=value)])
    except VsegError as error:
        print(f'{program.name}: error: {error}', file=sys.stderr)
        code = 1
    except interrupts.Interrupted as error:
        code = error.exit_code
    finally:
        rclpy.try_shutdown()
    interrupts.leave(code)


def _plain(arguments: list[str]) -> list[str]:
    """Return the arguments that are not between --ros-args and -- (or the end)."""
    plain, is_ros = [], False
    for argument in arguments:
        if argument == '--ros-args':
            is_ros = True
        elif is_ros:
            is_ros = argument != '--'
        else:
            plain.append(argument)
    return plain


def _parse(program: Program, arguments: list[str]) -> str | None:
    lines = []
    for parameter in program.table:
        default = parameter.default
        shown = str(default).lower() if isinstance(default, bool) else default
        lines.append(f'  {f"{parameter.name}:={shown}":<20}  {parameter.description}')
    parser = argparse.ArgumentParser(
        program.name, description=program.about, formatter_class=argparse.RawTextHelpFormatter,
        usage=f'%(prog)s [-h] [{program.positional.upper()}] [--ros-args -p NAME:=VALUE ... '
        '-r FROM:=TO ...]',
        epilog='parameters (-p), with their defaults:\n' + '\n'.join(lines))
    described = {parameter.name: parameter.description for parameter in program.table}
    parser.add_argument(program.positional, nargs='?', metavar=program.positional.upper(),
                        help=f'{described[program.positional]} (parameter {program.positional})')
    value: str | None = getattr(parser.parse_args(arguments), program.positional)
    return value


def _init(argv: list[str]) -> None:
    """Start ROS without its signal handlers; VsegError with the reason and what helps."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    try:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy's errors have no common base
        reason = ' '.join(str(error).split())
        fix = 'correct the arguments after --ros-args'
        if 'log directory' in reason or 'logging' in reason:
            fix = 'set ROS_LOG_DIR to a folder that can be written'
        raise VsegError(f'ROS cannot start ({reason}): {fix}') from error
