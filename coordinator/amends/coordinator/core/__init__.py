"""The pure core: `(definition, snapshot, input, now) -> transition`. It does no I/O and knows no clock."""

from amends.coordinator.core.inputs import AnyInput as AnyInput
from amends.coordinator.core.interest import interests as interests
from amends.coordinator.core.policy import Policy as Policy
from amends.coordinator.core.reconcile import sign_of_loss as sign_of_loss
from amends.coordinator.core.snapshot import Phase as Phase
from amends.coordinator.core.snapshot import RunStatus as RunStatus
from amends.coordinator.core.snapshot import Snapshot as Snapshot
from amends.coordinator.core.snapshot import StepRun as StepRun
from amends.coordinator.core.transition import DoesNotFit as DoesNotFit
from amends.coordinator.core.transition import start as start
from amends.coordinator.core.transition import transition as transition
from amends.coordinator.core.turn import Transition as Transition
from amends.coordinator.core.turn import Verdict as Verdict
from amends.coordinator.core.turn import encode_state as encode_state
