"""Files have at most 400 lines; functions, outside tests, fit on a screen."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = ("benchmarks", "convoy", "dataloader", "model", "runtime", "scripts", "utils")
FILE_LINES, FUNCTION_LINES = 400, 60


def files(*folders):
    return [ROOT / "main.py", *(file for name in folders for file in (ROOT / name).rglob("*.py"))]


def long_functions(text):
    """Returns name and number of lines of the functions that are longer than a screen."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    lines = [(function.name, function.end_lineno - function.lineno + 1) for function in functions]
    return [(name, count) for name, count in lines if count > FUNCTION_LINES]


def test_functions_fit_on_a_screen():
    found = {str(file.relative_to(ROOT)): long_functions(file.read_text()) for file in files(*CODE)}
    assert len(found) > 300
    assert not {file: functions for file, functions in found.items() if functions}


def test_no_file_is_too_long():
    everything = files(*CODE, "tests")
    lines = {str(file.relative_to(ROOT)): file.read_text().count("\n") for file in everything}
    assert not {file: count for file, count in lines.items() if count > FILE_LINES}


def test_a_long_function_is_found():
    longest = ["def long(self):", *["    pass"] * (FUNCTION_LINES - 1)]
    assert long_functions("\n".join(longest)) == []
    method = "\n".join(f"    {line}" for line in [*longest, "    pass"])
    text = f"class First:\n{method}\nclass Second:\n    def long(self): pass\n"
    assert long_functions(text) == [("long", FUNCTION_LINES + 1)]
