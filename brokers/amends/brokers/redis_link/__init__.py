"""What everything that keeps data in Redis stands on: connections, pipelines of scripts, plain words for its errors.

Needs `pip install amends[redis]`.
"""

from amends.brokers.redis_link.errors import RedisUnavailable as RedisUnavailable
from amends.brokers.redis_link.link import RedisLink as RedisLink
from amends.brokers.redis_link.scripts import Call as Call
from amends.brokers.redis_link.scripts import Script as Script
from amends.brokers.redis_link.scripts import command as command
from amends.brokers.redis_link.time import ServerTime as ServerTime
from amends.brokers.redis_link.urls import Durability as Durability
from amends.brokers.redis_link.urls import RedisUrl as RedisUrl
from amends.brokers.redis_link.urls import read_url as read_url
