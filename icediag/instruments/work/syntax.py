"""Syntax: the loops and functions of a source file, by line."""

import ast
import linecache
from dataclasses import dataclass, field

from icediag.records.work import LoopKind


@dataclass(eq=False)
class Function:
    """A function, method or lambda; the module itself is one too.

    Attributes:
        name: Qualified name.
        begins: Line that its code object begins at, decorators included.
        first: First line of its body and signature.
        last: Last line.
        is_lambda: Whether it is a lambda.
    """

    name: str
    begins: int
    first: int
    last: int
    is_lambda: bool = False


@dataclass(eq=False)
class Loop:
    """A loop.

    Attributes:
        kind: Which statement or expression.
        first: First line.
        last: Last line.
        body: Lines (first, last) of the statement that runs once a round; of a comprehension those
            of its element. None where no line of its own does: then the loop's first line is
            counted, which runs once more than there are rounds.
        function: What it stands in.
        around: The loop around it in the same function.
    """

    kind: LoopKind
    first: int
    last: int
    body: tuple[int, int] | None
    function: Function
    around: "Loop | None" = None


@dataclass
class Source:
    """A source file.

    Attributes:
        functions: All functions.
        loops: All loops, outer ones before inner ones.
        lines: Its text.
    """

    functions: list[Function] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_FOR = (ast.For, ast.AsyncFor)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def read_source(file: str) -> Source:
    """Loops and functions of a file; none where it has no source that can be read."""
    lines = linecache.getlines(file)
    source = Source(lines=lines)
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return source
    module = Function("<module>", 1, 1, max(len(lines), 1))
    _visit(tree, source, module, None, "")
    return source


def _visit(
    node: ast.AST, source: Source, function: Function, around: Loop | None, prefix: str
) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _FUNCTIONS):
            is_lambda = isinstance(child, ast.Lambda)
            name = "<lambda>" if isinstance(child, ast.Lambda) else child.name
            decorators = [] if isinstance(child, ast.Lambda) else child.decorator_list
            begins = min([child.lineno, *(decorator.lineno for decorator in decorators)])
            inner = Function(
                prefix + name, begins, child.lineno, child.end_lineno or child.lineno, is_lambda
            )
            source.functions.append(inner)
            _visit(child, source, inner, None, f"{prefix}{name}.")
        elif isinstance(child, ast.ClassDef):
            _visit(child, source, function, around, f"{prefix}{child.name}.")
        elif isinstance(child, (*_FOR, ast.While, *_COMPREHENSIONS)):
            loop = _loop(child, function, around)
            source.loops.append(loop)
            _visit(child, source, function, loop, prefix)
        else:
            _visit(child, source, function, around, prefix)


def _loop(node: ast.AST, function: Function, around: Loop | None) -> Loop:
    assert isinstance(node, (*_FOR, ast.While, *_COMPREHENSIONS))
    first, last = node.lineno, node.end_lineno or node.lineno
    if isinstance(node, _COMPREHENSIONS):
        element = node.value if isinstance(node, ast.DictComp) else node.elt
        lines = (element.lineno, element.end_lineno or element.lineno)
        # On one line with the rest, its lines run once more than there are rounds.
        alone = first != last and not any(
            lines[0] <= generator.target.lineno <= lines[1] for generator in node.generators
        )
        return Loop("comprehension", first, last, lines if alone else None, function, around)
    kind: LoopKind = "while" if isinstance(node, ast.While) else "for"
    body: tuple[int, int] | None = None
    for statement in node.body:
        if isinstance(statement, (*_FOR, ast.While)):
            continue  # its first line runs once more for each round of its own
        if statement.lineno > first and not isinstance(statement, ast.Expr | ast.Pass):
            body = statement.lineno, _own_end(statement)
            break
        if statement.lineno > first and isinstance(statement, ast.Expr):
            if isinstance(statement.value, ast.Constant):
                continue  # a docstring-like text, which is not run
            body = statement.lineno, _own_end(statement)
            break
    if isinstance(node.body[0], (*_FOR, ast.While)):
        body = None  # later statements may be passed over by a break
    return Loop(kind, first, last, body, function, around)


def _own_end(statement: ast.stmt) -> int:
    """Last line of a statement itself, without the statements inside of it."""
    inside = getattr(statement, "body", None)
    if isinstance(inside, list) and inside:
        return max(statement.lineno, int(inside[0].lineno) - 1)
    return statement.end_lineno or statement.lineno
