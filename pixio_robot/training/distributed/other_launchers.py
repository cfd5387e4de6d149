"""What torch needs to know of processes that neither torchrun, submitit nor srun has started: the variables of its
`env://`, as Kubernetes' PyTorchJob sets them, or Open MPI's."""

from __future__ import annotations

from collections.abc import Mapping

from pixio_robot.errors import UserError

_OPEN_MPI = {
    "RANK": "OMPI_COMM_WORLD_RANK",
    "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
    "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
    "LOCAL_WORLD_SIZE": "OMPI_COMM_WORLD_LOCAL_SIZE",
}
_ALONE_ON_ITS_MACHINE = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")


def launcher_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables by which this process, one of several, finds the others; empty for a process that is alone.

    Raises UserError for one of several without the address of the first.
    """
    told = {name: environment[theirs] for name, theirs in _OPEN_MPI.items() if environment.get(theirs)}
    told |= {name: environment[name] for name in _OPEN_MPI if environment.get(name)}
    rank, size = told.get("RANK", ""), told.get("WORLD_SIZE", "")
    if not (rank.isdecimal() and size.isdecimal() and int(size) > 1):
        return {}
    if missing := [name for name in _ADDRESS if not environment.get(name)]:
        raise UserError(
            f"This is process {int(rank) + 1} of {size} (RANK={rank}, WORLD_SIZE={size}), but {' and '.join(missing)} "
            "are not set, by which they find each other: set them to the host of the first process and a free port of "
            "it, or WORLD_SIZE=1 to train alone."
        )
    return _ALONE_ON_ITS_MACHINE | told
