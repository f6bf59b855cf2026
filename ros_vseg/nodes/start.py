# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How a node's process begins and ends: arguments, --help, ROS, signals, errors in one line."""
import argparse
from collections.abc import Callable, Sequence
import gc
import sys
from typing import Any, NamedTuple, TYPE_CHECKING

from ros_vseg import interrupts
from ros_vseg.errors import VsegError

if TYPE_CHECKING:
    from rclpy.executors import Executor
    from rclpy.node import Node

    from ros_vseg.nodes.parameters import Parameter


class Program(NamedTuple):
    """
    A node as a program.

    name: of the executable; about: for --help; table: its parameters; positional: the parameter
    that the one argument without a name sets; node: made with rclpy parameters that override the
    command line's; run: from the node to the exit code.
    """

    name: str
    about: str
    table: 'Sequence[Parameter]'
    positional: str | None
    node: Callable[[list[Any]], 'Node']
    run: Callable[[Any], int]


def run(load: Callable[[], Program], args: Sequence[str] | None = None) -> int:
    """
    Run a program and end the process with its exit code: 1, with one line, for a VsegError.

    ``load`` imports what takes time; a Ctrl-C meanwhile ends the process without a traceback.
    """
    interrupts.end_at_once()
    program = load()
    from rclpy.parameter import Parameter as Override
    argv = list(sys.argv if args is None else args)
    value = _parse(program, plain(argv[1:]))
    overrides = [] if value is None else [Override(str(program.positional), value=value)]
    interrupts.raise_once()
    node = None
    try:
        init(argv)
        node = program.node(overrides)
        code = program.run(node)
    except VsegError as error:
        print(f'{program.name}: error: {error}', file=sys.stderr)
        code = 1
    except interrupts.Interrupted as error:
        code = error.exit_code
    finally:
        close(node)
    interrupts.leave(code)


def close(node: 'Node | None', executor: 'Executor | None' = None) -> None:
    """
    End ROS in this process, whether or not it came as far as a node and an executor of its own.

    DDS gives its shared memory back only when the last node is gone, which an executor may hold:
    with the profile that is 67 MB of /dev/shm for every start.
    """
    import rclpy
    if executor is not None:
        executor.shutdown()
    if node is not None:
        node.destroy_node()
    gc.collect()    # a node that was refused while it was made
    rclpy.try_shutdown()


def plain(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that are not between --ros-args and -- (or the end)."""
    found, is_ros = [], False
    for argument in arguments:
        if argument == '--ros-args':
            is_ros = True
        elif is_ros:
            is_ros = argument != '--'
        else:
            found.append(argument)
    return found


def _parse(program: Program, arguments: list[str]) -> str | None:
    lines = []
    for parameter in program.table:
        default = parameter.default
        shown = str(default).lower() if isinstance(default, bool) else default
        lines.append(f'  {f"{parameter.name}:={shown}":<20}  {parameter.description}')
    positional = f'[{program.positional.upper()}] ' if program.positional else ''
    parser = argparse.ArgumentParser(
        program.name, description=program.about, formatter_class=argparse.RawTextHelpFormatter,
        usage=f'%(prog)s [-h] {positional}[--ros-args -p NAME:=VALUE ... -r FROM:=TO ...]',
        epilog='parameters (-p), with their defaults:\n' + '\n'.join(lines))
    if program.positional is None:
        parser.parse_args(arguments)
        return None
    described = {parameter.name: parameter.description for parameter in program.table}
    parser.add_argument(program.positional, nargs='?', metavar=program.positional.upper(),
                        help=f'{described[program.positional]} (parameter {program.positional})')
    value: str | None = getattr(parser.parse_args(arguments), program.positional)
    return value


def init(argv: list[str] | None) -> None:
    """
    Start ROS without its signal handlers, which end its context under the node's feet.

    Args:
        argv: The program's name and its arguments; None: those of the process.

    Raises:
        ParameterError: The arguments are wrong.
        VsegError: The log cannot be written.
    """
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from ros_vseg.nodes.parameters import ParameterError
    try:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy's errors have no common base
        reason = ' '.join(str(error).split(', at /')[0].split())  # of its C sources
        if 'log directory' in reason or 'logging' in reason:
            raise VsegError(f'ROS cannot start ({reason}): set ROS_LOG_DIR to a folder that can '
                            'be written') from error
        raise ParameterError(f'ROS cannot start ({reason}): correct the arguments after '
                             '--ros-args') from error
