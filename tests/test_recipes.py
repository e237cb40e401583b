"""Every file of examples/recipes prints what its docstring says."""

import ast
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "recipes"
RECIPES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_prints_what_its_docstring_says(recipe, tmp_path):
    code = recipe.read_text(encoding="utf-8")
    if "from sklearn" in code and find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not installed")
    done = subprocess.run(
        [sys.executable, recipe],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    docstring = ast.get_docstring(ast.parse(code), clean=True)
    assert done.stdout.strip() == textwrap.dedent(docstring.partition("It prints::\n")[2]).strip()
    assert "Warning" not in done.stderr


def test_the_readme_of_the_examples_lists_every_folder_and_every_recipe():
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    folders = [path for path in FOLDER.parent.iterdir() if path.is_dir() and path.name != "__pycache__"]
    for path in (*RECIPES, *folders):
        assert f"({path.relative_to(FOLDER.parent).as_posix()}" in readme, path
