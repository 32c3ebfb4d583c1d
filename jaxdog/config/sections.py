"""Sections of a config: fields are parameters of functions, and defaults are those of the parameters.

`Record`, `OneOf`, `AllOf`, `Each` and `Empty` describe a section. `fill` adds defaults, `check` names the
first invalid field, `bind` returns the function with its fields bound, and `instantiate` calls it.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from jaxdog.utils import errors

REQUIRED = inspect.Parameter.empty  # marks a field without a default
PLAIN = (int, float, str, bool, tuple)  # other types are not checked


class Field(NamedTuple):
    """A field of a section."""

    type: Any
    default: Any  # or REQUIRED


class Section(Protocol):
    """What a section of a config may hold."""

    @property
    def default(self) -> Mapping[str, Any] | None:
        """Used when the config omits this section; None: the section is required."""
        ...

    def fill(self, section: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Adds defaults. Raises ConfigError if a field is unknown, missing or of the wrong type."""
        ...

    def check(self, section: Mapping[str, Any], path: str) -> None:
        """Raises ConfigError if a field is unknown, missing or of the wrong type."""
        ...


@dataclasses.dataclass(frozen=True)
class Record:
    """A section that fills the parameters of one function."""

    function: Callable[..., Any]
    nested: Mapping[str, Section] = dataclasses.field(default_factory=dict)  # fields that are sections
    given: tuple[str, ...] = ()  # parameters that are passed by code and are not fields
    default: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)
    beside: "Record | None" = None  # further fields of the section, which are not parameters of the function

    def fields(self) -> dict[str, Field]:
        """The fields, in the order of the function's parameters."""
        parameters = inspect.signature(self.function).parameters
        own = {
            name: Field(parameter.annotation, parameter.default)
            for name, parameter in parameters.items()
            if name not in self.given
        }
        return {**self.beside.fields(), **own} if self.beside else own

    def sections(self) -> Mapping[str, Section]:
        """The fields that are sections."""
        return {**self.beside.nested, **self.nested} if self.beside else self.nested

    def fill(self, section: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Adds defaults. Raises ConfigError if a field is unknown, missing or of the wrong type."""
        _check_mapping(section, path)
        fields = self.fields()
        _check_known(section, fields, path)
        filled = {name: field.default for name, field in fields.items() if field.default is not REQUIRED}
        filled |= section
        for name, inner in self.sections().items():
            value = filled.get(name, inner.default)
            if value is not None:
                filled[name] = inner.fill(value, f"{path}.{name}")
        for name, value in filled.items():
            if type(value) is int and name in fields and fields[name].type is float:
                filled[name] = float(value)
        self.check(filled, path)
        return filled

    def check(self, section: Mapping[str, Any], path: str) -> None:
        """Raises ConfigError if a field is unknown, missing or of the wrong type."""
        _check_mapping(section, path)
        fields, nested = self.fields(), self.sections()
        _check_names(section, fields, path)
        for name, value in section.items():
            check_type(f"{path}.{name}", value, fields[name].type)
            if name in nested:
                nested[name].check(value, f"{path}.{name}")

    def bind(self, section: Mapping[str, Any], path: str, **given: Any) -> Callable[..., Any]:
        """The function with the section's fields, and those of `given` that it accepts, bound."""
        self.check(section, path)
        taken = set(inspect.signature(self.function).parameters) & set(self.given)
        return partial(self.function, **section, **{name: given[name] for name in given if name in taken})


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A section whose `name` selects a function of a table; other fields are the function's parameters."""

    table: Mapping[str, Callable[..., Any]]
    given: tuple[str, ...] = ()  # parameters that are passed by code and are not fields
    nested: Mapping[str, Section] = dataclasses.field(default_factory=dict)  # fields that are sections
    default: Mapping[str, Any] | None = None
    beside: Record | None = None  # fields that all rows have
    optional: bool = False  # the section may be empty

    def choose(self, section: Mapping[str, Any], path: str) -> Record:
        """The function that `name` selects."""
        _check_mapping(section, path)
        if "name" not in section:
            raise errors.ConfigError(f"{path}.name is missing; choices: {', '.join(sorted(self.table))}")
        function = choose(self.table, section["name"], f"{path}.name")
        return Record(function, self.nested, ("parent", "name", *self.given), beside=self.beside)

    def fill(self, section: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Adds defaults. Raises ConfigError if a field is unknown, missing or of the wrong type."""
        if self.optional and not section:
            return {}
        return {"name": section.get("name"), **self.choose(section, path).fill(_nameless(section), path)}

    def check(self, section: Mapping[str, Any], path: str) -> None:
        """Raises ConfigError if a field is unknown, missing or of the wrong type."""
        if section or not self.optional:
            self.choose(section, path).check(_nameless(section), path)

    def bind(self, section: Mapping[str, Any], path: str, **given: Any) -> Callable[..., Any]:
        """The function that `name` selects, with its fields and those of `given` that it accepts, bound."""
        return self.choose(section, path).bind(_nameless(section), path, **given)

    def instantiate(self, section: Mapping[str, Any], path: str, **given: Any) -> Any:
        """Calls the function that `name` selects with its fields and those of `given` that it accepts."""
        return self.bind(section, path, **given)()


@dataclasses.dataclass(frozen=True)
class AllOf:
    """A section that maps functions of a table to their parameters. Their order is the table's."""

    table: Mapping[str, Callable[..., Any]]
    given: tuple[str, ...] = ()  # parameters that are passed by code and are not fields
    default: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)

    def records(self, section: Mapping[str, Any], path: str) -> dict[str, Record]:
        """The functions that the section names, in the order of the table."""
        _check_mapping(section, path)
        _check_known(section, self.table, path)
        return {name: Record(row, given=self.given) for name, row in self.table.items() if name in section}

    def fill(self, section: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Adds defaults. Raises ConfigError if a field is unknown, missing or of the wrong type."""
        records = self.records(section, path)
        return {name: record.fill(section[name], f"{path}.{name}") for name, record in records.items()}

    def check(self, section: Mapping[str, Any], path: str) -> None:
        """Raises ConfigError if a field is unknown, missing or of the wrong type."""
        for name, record in self.records(section, path).items():
            record.check(section[name], f"{path}.{name}")

    def bind(self, section: Mapping[str, Any], path: str, **given: Any) -> dict[str, Callable[..., Any]]:
        """The functions, with their fields and what they take of `given` filled in."""
        records = self.records(section, path)
        return {
            name: record.bind(section[name], f"{path}.{name}", **given) for name, record in records.items()
        }


@dataclasses.dataclass(frozen=True)
class Each:
    """A section that maps names to sections of one kind."""

    inner: Section
    names: tuple[str, ...] | None = None  # None: any
    default: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)

    def fill(self, section: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Adds defaults. Raises ConfigError if a field is unknown, missing or of the wrong type."""
        self._check_names(section, path)
        return {name: self.inner.fill(value, f"{path}.{name}") for name, value in section.items()}

    def check(self, section: Mapping[str, Any], path: str) -> None:
        """Raises ConfigError if a field is unknown, missing or of the wrong type."""
        self._check_names(section, path)
        for name, value in section.items():
            self.inner.check(value, f"{path}.{name}")

    def _check_names(self, section: Mapping[str, Any], path: str) -> None:
        _check_mapping(section, path)
        if self.names is not None:
            _check_names(section, self.names, path)


@dataclasses.dataclass(frozen=True)
class Empty:
    """A section that a system does not have."""

    reason: str  # the end of the error message
    default: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)

    def fill(self, section: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Returns an empty section; raises ConfigError if it has a field."""
        self.check(section, path)
        return {}

    def check(self, section: Mapping[str, Any], path: str) -> None:
        """Raises ConfigError if the section has a field."""
        if section:
            raise errors.ConfigError(f"{path}.{sorted(section)[0]} is not a field: {self.reason}")


# ------------------------------------------------------------------ checks


def choose(table: Mapping[str, Any], name: Any, path: str) -> Any:
    """The row `name` of a table; raises ConfigError with the names of all rows if there is none."""
    if name not in list(table):
        raise errors.ConfigError(f"{path} is {name!r}; choices: {', '.join(sorted(table))}")
    return table[name]


def check_type(path: str, value: Any, hint: Any) -> None:
    """Raises ConfigError unless `value` fits a plain annotation or a Literal; an int fits a float.

    A tuple holds numbers, unless its annotation says otherwise.
    """
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    choices = choices_of(hint)
    plain = tuple(str if typing.get_origin(x) is typing.Literal else typing.get_origin(x) or x for x in kinds)
    if not all(kind in PLAIN for kind in plain):
        return
    fits = isinstance(value, plain) or (float in plain and isinstance(value, int))
    if not fits or (isinstance(value, bool) and bool not in plain):
        names = " or ".join(kind.__name__ for kind in plain)
        raise errors.ConfigError(f"{path} is {value!r} ({type(value).__name__}), and must be of type {names}")
    if choices:
        for one in value if isinstance(value, tuple) else (value,):
            choose(dict.fromkeys(choices), one, path)
    elif isinstance(value, tuple):
        held = [typing.get_args(kind)[0] for kind in kinds if typing.get_origin(kind) is tuple]
        for i, one in enumerate(value):
            check_type(f"{path}[{i}]", one, held[0] if held else float)


def choices_of(hint: Any) -> tuple[str, ...]:
    """The values of Literal[...] or of tuple[Literal[...], ...]; () for other annotations."""
    if typing.get_origin(hint) is tuple and typing.get_args(hint):
        hint = typing.get_args(hint)[0]
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def _check_known(section: Mapping[str, Any], fields: Collection[str], path: str) -> None:
    unknown = sorted(set(section) - set(fields))
    if unknown:
        names = ", ".join(sorted(fields)) or "none"
        hint = errors.did_you_mean(unknown[0], fields)
        raise errors.ConfigError(f"{path}.{unknown[0]} is not a field of {path}; {hint}fields: {names}")


def _check_names(section: Mapping[str, Any], fields: Collection[str], path: str) -> None:
    _check_known(section, fields, path)
    missing = sorted(set(fields) - set(section))
    if missing:
        raise errors.ConfigError(f"{path}.{missing[0]} is missing; {path} needs: {', '.join(sorted(fields))}")


def _check_mapping(section: Any, path: str) -> None:
    if not isinstance(section, Mapping):
        raise errors.ConfigError(f"{path} is {section!r}, and must be a section: a dict of its fields")


def _nameless(section: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name != "name"}
