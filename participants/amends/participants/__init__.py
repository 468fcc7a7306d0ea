"""The library that a service embeds to take part in sagas: handlers, and an inbox so that effects happen once."""

from amends.brokers import Retention as Retention
from amends.participants.connect import connect_inbox as connect_inbox
from amends.participants.context import Context as Context
from amends.participants.context import Undoes as Undoes
from amends.participants.errors import BrokenPromise as BrokenPromise
from amends.participants.errors import ParticipantDefinitionError as ParticipantDefinitionError
from amends.participants.errors import Reject as Reject
from amends.participants.inbox import Inbox as Inbox
from amends.participants.inbox import TransactionalInbox as TransactionalInbox
from amends.participants.memory_inbox import MemoryInbox as MemoryInbox
from amends.participants.participant import Participant as Participant
from amends.participants.runner import ParticipantRunner as ParticipantRunner
from amends.participants.session import Session as Session
from amends.participants.sqlite_inbox import SqliteInbox as SqliteInbox
