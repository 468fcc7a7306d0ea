"""How sagas are declared."""

from amends.coordinator.declaration.definition import Definition as Definition
from amends.coordinator.declaration.definition import Plan as Plan
from amends.coordinator.declaration.definition import StepKind as StepKind
from amends.coordinator.declaration.errors import Problem as Problem
from amends.coordinator.declaration.errors import SagaDefinitionError as SagaDefinitionError
from amends.coordinator.declaration.results import Compensate as Compensate
from amends.coordinator.declaration.results import Decision as Decision
from amends.coordinator.declaration.results import Publish as Publish
from amends.coordinator.declaration.results import Skip as Skip
from amends.coordinator.declaration.results import Sleep as Sleep
from amends.coordinator.declaration.results import WaitFor as WaitFor
from amends.coordinator.declaration.run import Run as Run
from amends.coordinator.declaration.saga import Saga as Saga
from amends.coordinator.declaration.saga import definition_of as definition_of
from amends.coordinator.declaration.step import Step as Step
from amends.coordinator.declaration.step import step as step
