"""Finds what a source uses of TensorRT, and compares it with TensorRT's Python bindings.

The bindings tell the signatures of their functions in ``__doc__``.
"""

import ast
import re
from collections import ChainMap
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# What we call TensorRT's module: a parameter, and an import for types
MODULES = ('trt', 'tensorrt')
IN_C = {'nvonnxparser::IParserError': 'ParserError'}  # said by its name in C++


def look(api, sources):
    """Return what sources use, such as ``Builder.create_network``, and what is wrong with it.

    :param api: The module of the bindings.
    :param sources: Python sources by their names, which are said with the faults.
    """
    trees = {name: ast.parse(source) for name, source in sources.items()}
    returns = {
        node.name: node.returns
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    uses, faults = set(), set()
    for name, tree in trees.items():
        visitor = Uses(api, name, returns)
        visitor.visit(tree)
        uses |= visitor.uses
        faults |= visitor.faults
    return uses, faults


@dataclass(frozen=True)
class Object:
    """The kind of an expression that is an object of a class of TensorRT.

    A class and the module are their own kinds. The kind of a list is a list of one kind, that of a
    tuple a tuple of kinds. It is None for everything that is not TensorRT's.
    """

    of: Any


class Uses(ast.NodeVisitor):
    """Follows TensorRT's objects through a source, and notes what they are used for.

    :param returns: Annotations of what our functions return, by the functions' names.
    """

    def __init__(self, api, name, returns):
        self.api = api
        self.name = name
        self.returns = returns
        self.kinds = ChainMap(dict.fromkeys(MODULES, api))
        self.uses = set()
        self.faults = set()

    # Names and their kinds

    def visit_FunctionDef(self, node):
        self.kinds = self.kinds.new_child()
        for argument in (*node.args.args, *node.args.kwonlyargs):
            is_module = argument.arg in MODULES
            kind = self.api if is_module else self.annotated(argument.annotation)
            self.kinds[argument.arg] = kind
        self.generic_visit(node)
        self.kinds = self.kinds.parents

    def visit_ClassDef(self, node):
        self.kinds = self.kinds.new_child()
        for _ in range(2):  # a method may use what a later one sets
            self.generic_visit(node)
        for base in map(self.kind, node.bases):
            if isinstance(base, type):
                self.check_overridden(base, node)
        self.kinds = self.kinds.parents

    def visit_Assign(self, node):
        self.generic_visit(node)
        for target in node.targets:
            self.bind(target, self.kind(node.value))

    def visit_AnnAssign(self, node):
        self.generic_visit(node)
        self.bind(node.target, self.annotated(node.annotation))

    def visit_For(self, node):
        self.bind(node.target, item(self.kind(node.iter)))
        self.generic_visit(node)

    def visit_ListComp(self, node):
        for each in node.generators:
            self.bind(each.target, item(self.kind(each.iter)))
        self.generic_visit(node)

    visit_GeneratorExp = visit_DictComp = visit_ListComp

    def bind(self, target, kind):
        if isinstance(target, ast.Name):
            self.kinds[target.id] = kind
        elif isinstance(target, ast.Tuple):
            parts = kind if isinstance(kind, tuple) else (None,) * len(target.elts)
            for each, part in zip(target.elts, parts, strict=True):
                self.bind(each, part)
        elif ast.unparse(target).startswith('self.'):
            self.kinds.parents[ast.unparse(target)] = kind  # for the other methods, too

    def annotated(self, node):
        """Return the kind that an annotation tells."""
        if isinstance(node, ast.BinOp):  # C | None
            return self.annotated(node.left)
        if isinstance(node, ast.Subscript):
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            kinds = tuple(map(self.annotated, parts))
            return kinds if ast.unparse(node.value) == 'tuple' else [kinds[0]]
        kind = self.kind(node) if node else None
        return Object(kind) if isinstance(kind, type) else None

    def kind(self, node):
        if isinstance(node, ast.ListComp):
            return [self.kind(node.elt)]
        if isinstance(node, ast.Call):
            return self.result(node.func)
        if (text := ast.unparse(node)) in self.kinds:  # name or self.name
            return self.kinds[text]
        if not isinstance(node, ast.Attribute):
            return None
        found = self.found(node)
        if isinstance(found, property):
            return self.said(found.fget)
        if isinstance(found, type):
            return found
        return Object(type(found)) if hasattr(found, '__members__') else None  # of an enum

    def result(self, function):
        """Return the kind of what a function returns."""
        if isinstance(function, ast.Name) and function.id in self.returns:
            return self.annotated(self.returns[function.id])
        if isinstance(kind := self.kind(function), type):
            return Object(kind)
        found = self.found(function)
        return self.said(found) if callable(found) else None

    def said(self, function):
        """Return the kind that the first signature in a function's docstring returns."""
        outer, name = re.search(r' -> (list\[)?([\w.:]+)', function.__doc__).groups()
        kind = getattr(self.api, IN_C.get(name, name.split('.')[-1]), None)
        kind = Object(kind) if isinstance(kind, type) else None
        return [kind] if outer else kind

    def owner(self, node):
        """Return the class or module in which to find an attribute; None if not TensorRT's."""
        kind = self.kind(node.value) if isinstance(node, ast.Attribute) else None
        kind = kind.of if isinstance(kind, Object) else kind
        return kind if isinstance(kind, type | ModuleType) else None

    def found(self, node):
        return getattr(self.owner(node), node.attr, None) if self.owner(node) else None

    # Uses

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if (owner := self.owner(node)) is None:
            return
        use = f'{owner.__name__.split(".")[-1]}.{node.attr}'
        self.uses.add(use)
        if not hasattr(owner, node.attr):
            self.fault(node, f'there is no {use}')
        elif isinstance(node.ctx, ast.Store) and getattr(self.found(node), 'fset', None) is None:
            self.fault(node, f'{use} cannot be set')

    def visit_Call(self, node):
        self.generic_visit(node)
        if isinstance(kind := self.kind(node.func), type):
            self.check_call(node, kind.__init__)
        elif callable(found := self.found(node.func)):
            self.check_call(node, found)

    def check_call(self, node, function):
        offered = signatures(function)
        names = [word.arg for word in node.keywords]
        if not any(takes(parameters, len(node.args), names) for parameters in offered):
            wanted = ' or '.join(f'({", ".join(parameters)})' for parameters in offered)
            self.fault(node, f'{ast.unparse(node)}: it takes {wanted}')

    def check_overridden(self, base, node):
        """Compare a class of ours with the functions of its base, which TensorRT calls."""
        ours = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
        for name, function in vars(base).items():
            if name.startswith('_') or isinstance(function, type) or not callable(function):
                continue
            self.uses.add(f'{base.__name__}.{name}')
            (parameters,) = signatures(function)
            if name not in ours:
                self.fault(node, f'{base.__name__}.{name} is not overridden')
            elif len(ours[name].args.args) != len(['self', *parameters]):
                self.fault(ours[name], f'{name} is called with ({", ".join(parameters)})')

    def fault(self, node, text):
        self.faults.add(f'{self.name}:{node.lineno}: {text}')


def item(kind):
    return kind[0] if isinstance(kind, list) else None


def signatures(function):
    """Return the parameters, without self, of each signature in a docstring of pybind11.

    A parameter is its name, with ``=`` if it has a default.
    """
    found = []
    for line in function.__doc__.splitlines():
        if not (head := re.match(r'(?:\d+\. )?\w+\((self: .*)\) -> ', line)):
            continue
        inner = re.sub(r'<[^<>]*>', '', head[1])  # a default such as <Strategy.STATIC: 0>
        while '[' in inner:
            inner = re.sub(r'\[[^\[\]]*\]', '', inner)
        parts = inner.split(', ')[1:]
        found.append([part.split(':')[0] + '=' * (' = ' in part) for part in parts])
    return found


def takes(parameters, count, names):
    """Return whether a call with so many positional arguments and these names fits."""
    rest = parameters[count:]
    known = {each.rstrip('=') for each in rest}
    needed = {each for each in rest if not each.endswith('=')}
    return count <= len(parameters) and needed <= set(names) <= known
