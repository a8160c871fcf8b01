"""What the end of a run says of real parts that are missing, when workers of pytest-xdist ran the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TEST = "import pytest\n@pytest.mark.real('no-such-part')\ndef test_it(): ...\n"


@pytest.mark.parametrize(("required", "outcome"), [("0", "1 skipped"), ("1", "1 error")])
def test_the_end_of_a_run_names_the_missing_parts(required: str, outcome: str, tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-n", "1"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(file)], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"REGMESH_REQUIRE_REAL": required},
    )  # fmt: skip
    assert "real parts that are missing" in done.stdout, done.stdout
    assert "no-such-part: no no-such-part on PATH" in done.stdout
    assert outcome in done.stdout.splitlines()[-1]
