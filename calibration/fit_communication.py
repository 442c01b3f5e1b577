"""Fit the communication sections of the shipped profiles to the tables of NCCL and DeepEP, and print what they say.

    python calibration/fit_communication.py [SYSTEM ...]

All versions of both libraries in aiconfigurator-core 0.12.0 are read. Only `communication` changes; operators and their
grids stay as they are.
"""

from __future__ import annotations

import sys

import yaml

from moesim import atomic, shipped, yamlfile
from moesim.calibration import communication
from moesim.calibration.aiconfigurator import import_communication
from moesim.calibration.systems import SystemsSection, find_system
from moesim.costs.profile_file import ProfileSection
from moesim.yamlfile import validate


def refit(name: str) -> None:
    """One profile's section, written in place."""
    system = find_system(name)
    path = shipped.shipped("calibration", "profiles", f"{name}.yaml")
    document = yamlfile.read_yaml(path)
    section = document.validate(ProfileSection)
    heldout = {key: one.model_dump() for key, one in section.heldout_communication.items()}
    records = import_communication(system.facts.table, system.facts.reported_as)
    told = {key: one.section() for key, one in communication.domain_errors([records]).items()}
    found = dict(document.data) | {"communication": communication.section(records, system, heldout)}
    found["heldout_communication"] = dict(document.data["heldout_communication"]) | told
    validate(ProfileSection, found, lambda keys: f"{path} {'.'.join(map(str, keys))}")
    atomic.write(path, yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None))
    for kernel, cost in found["communication"].items():
        print(f"{name} {kernel}: {cost['efficiency']}, spread {cost.get('spread', 0)}: {cost['source']}")


def main() -> None:
    """All systems, or those that are named."""
    known = yamlfile.read_yaml(shipped.shipped("calibration", "systems.yaml")).validate(SystemsSection).systems
    for name in sys.argv[1:] or known:
        refit(name)


if __name__ == "__main__":
    main()
