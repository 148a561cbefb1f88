"""How commands are added to the command line: the docstring is the help text, with examples below."""

import copy
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from sgbench.core.errors import InputError
from sgbench.core.words import quoted

Function = TypeVar("Function", bound=Callable[..., None])


class Command(TyperCommand):
    """A command that refuses a single-value option given twice, of which Click would take the last."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of a command line.

        Raises:
            InputError: If a single-value option is given more than once, or a value is not of its type.
        """
        gathering = copy.copy(self)
        gathering.params = [_repeatable(parameter) for parameter in self.params]
        given, _, _ = gathering.make_parser(ctx).parse_args(list(args))
        for parameter in self.params:
            values = given.get(str(parameter.name))
            if _holds_one_value(parameter) and values and len(values) > 1:
                raise InputError(
                    f"{parameter.opts[0]} is given {len(values)} times, as {' and '.join(map(quoted, values))}; "
                    "it takes one value."
                )
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            values = given.get(str(error.param.name)) if error.param else None
            if error.param is None or not values:
                raise
            value = values[-1] if isinstance(values, list) else values
            called = error.param.opts[0] if error.param.param_type_name == "option" else error.param.metavar
            problem = f"{error.message[0].lower()}{error.message[1:].rstrip('.')}"
            raise InputError(f"{called} is {quoted(value)}: {problem}.") from error


def _repeatable(parameter: Any) -> Any:
    """Return a single-value option as one that collects every value it is given."""
    if _holds_one_value(parameter):
        parameter = copy.copy(parameter)
        parameter.multiple = True
    return parameter


def _holds_one_value(parameter: Any) -> bool:
    return parameter.param_type_name == "option" and not (parameter.multiple or parameter.is_flag)


def command(app: typer.Typer, *examples: str, name: str | None = None) -> Callable[[Function], Function]:
    """Add a function to the commands of an app.

    Args:
        app: The app.
        examples: Command lines.
        name: The command's name, by default the function's.
    """

    def add(function: Function) -> Function:
        help_text = flowing(function.__doc__)
        return app.command(name=name, cls=Command, help=help_text, epilog=below(*examples))(function)

    return add


def below(*examples: str) -> str:
    """Return the end of a help text: the examples, one per line."""
    return "\n".join(("Examples:", *examples))


def flowing(docstring: str | None) -> str:
    """Return a docstring with each paragraph on one line, for typer to wrap to the width of the terminal."""
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in inspect.cleandoc(docstring or "").split("\n\n"))
