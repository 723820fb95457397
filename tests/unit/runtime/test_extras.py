from __future__ import annotations

import pytest

from heim_runtime.extras import MissingExtraError, require


def test_installed_modules_are_enough() -> None:
    require("heim-proxy", "proxy", "json", "logging")


def test_a_missing_module_is_told_with_the_command_that_installs_it() -> None:
    with pytest.raises(MissingExtraError) as caught:
        require("heim-proxy", "proxy", "json", "no_such_module_here")
    assert str(caught.value) == (
        "heim-proxy needs no_such_module_here, which this installation does not have; "
        "run: pip install 'heim[proxy]'"
    )
