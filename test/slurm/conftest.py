"""Fixtures of the tests on a real Slurm; without root or Slurm they are skipped."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cluster import NODES, Cluster, missing


@pytest.fixture(scope="session")
def cluster_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Nodes n1, n2, n3 of two processors each."""
    if why := missing():
        pytest.skip(f"no Slurm: {why}")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def cluster(cluster_of_session: Cluster) -> Iterator[Cluster]:
    """The cluster with all nodes up and no job, before and after a test."""
    yield cluster_of_session
    cluster_of_session.run("scancel", "--user", "root", check=False)
    cluster_of_session.wait(lambda: not cluster_of_session.job_ids(), 30)
    for node in NODES:
        if node not in cluster_of_session.daemons:
            cluster_of_session.start_node(node)
    cluster_of_session.wait(lambda: all(cluster_of_session.node_state(node) == "idle" for node in NODES), 30)
