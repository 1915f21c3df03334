"""What the package offers, and what loading it costs."""

import subprocess
import sys

import pytest

import vcp_cluster.executor as package


def test_every_public_name_exists_and_the_list_is_sorted() -> None:
    assert list(package.__all__) == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = package.nothing_of_ours


@pytest.mark.parametrize("name", ["run", "check_module", "PROFILE_ID", "isolation"])
def test_the_engine_is_not_loaded_in_the_parent(name: str) -> None:
    script = (
        f"import sys; from vcp_cluster.executor import {name}; assert 'wasmtime' not in sys.modules"
    )
    subprocess.run([sys.executable, "-I", "-c", script], check=True, timeout=60)
