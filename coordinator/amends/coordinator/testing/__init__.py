"""Testing sagas: one alone (`given`), or together with participants on a virtual clock (`World`)."""

from amends.coordinator.testing.clock import VirtualClock as VirtualClock
from amends.coordinator.testing.given import Given as Given
from amends.coordinator.testing.given import given as given
from amends.coordinator.testing.world import World as World
