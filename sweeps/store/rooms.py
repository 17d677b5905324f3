"""The rooms of a store: the folders under its root, each of which holds folders by id or name."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["sweep", "search", "headline"]

DONE = "done.json"
STAGE_LOCK, DRIVER_LOCK = "stage.lock", "driver.lock"
RUN_HERE = ".run-here"
"""In a headline's folder if it was run in this store; hidden, so that it is not copied."""


@dataclass(frozen=True)
class Room:
    """A room that the store knows; a stage may have one of its own."""

    name: str
    mark: str = DONE
    """The file without which one of its folders counts as unfinished, or as empty."""
    lock: str = STAGE_LOCK
    """Held by the process that works in one of its folders."""
    is_result: bool = False
    """Whether tables, status and reports read it."""


ROOMS = (
    Room("cams", is_result=True),  # trainings of CAM networks
    Room("counts"),  # pixels per threshold, for several scores
    Room("runs", is_result=True),  # scores of trainings
    Room("maps"),  # CAMs in files
    Room("walks"),  # affinity networks, and CAMs that they have spread
    Room("labels"),  # label maps
    Room("segmentations"),  # trainings of segmentation networks
    Room("predictions"),  # what those predict, and archives of it
    Room("sweeps", "sweep.json", DRIVER_LOCK, is_result=True),  # tables
    Room("searches", "search.json", DRIVER_LOCK, is_result=True),
    Room("headline", "headline.json", DRIVER_LOCK, is_result=True),  # Tables I and II
)

MARKS = {room.mark for room in ROOMS}
RESULTS = tuple(room for room in ROOMS if room.is_result)
STAGES = tuple(room.name for room in ROOMS if room.mark == DONE)
OF_KIND: dict[Kind, str] = {"sweep": "sweeps", "search": "searches", "headline": "headline"}
"""Kind of what is driven -> its room."""


@dataclass(frozen=True)
class Driven:
    """A sweep, search or headline of a store."""

    kind: Kind
    name: str

    @property
    def title(self) -> str:
        """Display name."""
        return f"{self.kind} {self.name}"

    @property
    def path(self) -> str:
        """Its folder in the store."""
        return f"{OF_KIND[self.kind]}/{self.name}"

    @property
    def description(self) -> str:
        """The file in it that says what it is."""
        return f"{self.path}/{self.kind}.json"
