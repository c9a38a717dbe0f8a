"""Lets tox environments that share an `env_dir` share it for good.

tox records in the folder which environment made it, by name, and makes it anew for another name. Environments with
`runner = shared` are recorded under the folder's name instead, so any of them may use what another has installed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tox.plugin import impl
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner
from tox.tox_env.register import ToxEnvRegister


class FolderInfo(Info):
    @contextmanager
    def compare(self, value: Any, section: str, sub_section: str | None = None) -> Iterator[tuple[bool, Any]]:
        if section == "ToxEnv":
            value = {**value, "name": self._path.parent.name}
        with super().compare(value, section, sub_section) as result:
            yield result


class SharedRunner(VirtualEnvRunner):
    @staticmethod
    def id() -> str:
        return "shared"

    @property
    def cache(self) -> Info:
        return FolderInfo(self.env_dir)


@impl
def tox_register_tox_env(register: ToxEnvRegister) -> None:
    register.add_run_env(SharedRunner)
