"""What Kafka's errors mean, in plain words."""

from __future__ import annotations

from aiokafka import errors

from amends.brokers.kafka.options import KafkaOptions
from amends.brokers.port import BrokerUnavailable

_RIGHTS = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
)
_LOGIN = (
    errors.AuthenticationFailedError,
    errors.SaslAuthenticationFailed,
    errors.IllegalSaslStateError,
    errors.UnsupportedSaslMechanismError,
)
_SILENCE = (errors.NodeNotReadyError, errors.RequestTimedOutError, errors.KafkaTimeoutError)


def unavailable(options: KafkaOptions, error: BaseException, doing: str = "") -> BrokerUnavailable:
    """The `BrokerUnavailable` for an error of the client library."""
    return BrokerUnavailable(f"{options.place} {_problem(error)}{f' ({doing})' if doing else ''}")


def _problem(error: BaseException) -> str:
    about = f" {error.args[0]}" if error.args and error.args[0] else ""
    if isinstance(error, _RIGHTS):
        what = "topic" if isinstance(error, errors.TopicAuthorizationFailedError) else "group"
        if isinstance(error, errors.ClusterAuthorizationFailedError):
            return f"does not let us do this:{about or ' a right is missing'}. Grant it; work then goes on by itself"
        return f"gives no right to {what}{about}. Grant it; work then goes on by itself"
    if isinstance(error, _LOGIN):
        return f"refuses user or password:{about or ' it does not say why'}. Check the URL"
    if isinstance(error, errors.NotEnoughReplicasError | errors.NotEnoughReplicasAfterAppendError):
        return "has too few copies in step to store messages safely. Bring its other brokers back"
    if isinstance(error, _SILENCE):
        return "cannot be reached: it does not answer"
    if isinstance(error, OSError | TimeoutError | errors.KafkaConnectionError):
        return f"cannot be reached:{about or ' it does not answer'}"
    return f"cannot work now: {type(error).__name__}{about}"
