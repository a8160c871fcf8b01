"""`regmesh diff` of two equal registries, with 100 tags in each of 100 repositories, beside a pass over HTTP alone."""

import shutil
import time
from collections.abc import Iterator

import yaml

from tests.bench import workplace
from tests.bench.client import Client
from tests.bench.table import Options, Row, progress, spread
from tests.soak.fill import differences, document
from tests.support import parts
from tests.support.parts import Distribution

NEEDS = ("docker-registry",)
_ROUNDS = 3


def rows(options: Options) -> Iterator[Row]:
    """Yields the rows of the group `diff`."""
    repositories, tags = (2, 10) if options.quick else (100, 100)
    with workplace.on_disk() as folder:
        source, replica = Distribution(folder / "game"), Distribution(folder / "replica")
        try:
            source.start()
            _populate(source, repositories, tags)
            shutil.copytree(folder / "game" / "data", folder / "replica" / "data")
            replica.start()
            file = folder / "mesh.yaml"
            file.write_text(yaml.safe_dump(document(source, replica)))
            command = ["diff", "game", "game@shanghai", "--exit-code", "-f", str(file)]
            taken: dict[str, list[float]] = {"": [], " --deep": [], "walk": []}
            for number in range(1 if options.quick else _ROUNDS):
                for how, seconds in taken.items():
                    began = time.perf_counter()
                    if how == "walk":
                        assert not differences(source, replica)
                    else:
                        done = parts.run_regmesh(*command, *how.split(), timeout=600)
                        assert done.returncode == 0, done.stderr
                    seconds.append(time.perf_counter() - began)
                    progress(f"diff {number + 1}: {how or 'tags'} {seconds[-1]:.1f} s")
        finally:
            source.end()
            replica.end()
    where = f"{repositories * tags} equal tags, two docker-registries"
    yield Row("diff: `regmesh diff`", where, f"{spread(taken[''])} s", "60 s at most")
    yield Row("diff: `regmesh diff --deep`", where, f"{spread(taken[' --deep'])} s")
    yield Row(
        "diff: every manifest read and every blob asked for, by plain HTTP",
        where,
        f"{spread(taken['walk'])} s",
    )


def _populate(registry: Distribution, repositories: int, tags: int) -> None:
    """Pushes images of one layer each; the tags of a repository differ."""
    progress(f"pushing {repositories * tags} images")
    client = Client(registry)
    for number in range(repositories):
        for tag in range(tags):
            manifest = client.push_blobs(f"team/app{number}", [200])
            client.put_manifest(f"team/app{number}", f"v{tag}", manifest)
    client.close()
