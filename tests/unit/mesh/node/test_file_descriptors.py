"""How many open files a process may have, and how many of them clients may take."""

import resource
import subprocess
import sys

import pytest

from mesh.node import file_descriptors


@pytest.mark.parametrize(
    ("setting", "open_files", "listeners", "most"),
    [
        (4000, 65_536, 1, 4000),
        (4000, 1024, 1, 341),
        (4000, 256, 1, 85),
        (4000, 256, 2, 42),
        (50, 65_536, 2, 50),
        (4000, 20, 4, 8),
    ],
)
def test_clients_get_a_third_of_the_open_files_at_most(
    setting: int, open_files: int, listeners: int, most: int
) -> None:
    assert file_descriptors.most_connections(setting, open_files, listeners) == most


def test_a_process_raises_its_soft_limit_of_open_files_to_the_hard_one() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = 128 if hard == resource.RLIM_INFINITY else min(128, hard)
    code = (
        "import resource; from mesh.node import file_descriptors as f;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({low}, 512));"
        "print(f.raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "512 (512, 512)"
