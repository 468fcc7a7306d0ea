"""The order saga on real servers, each contestant as several processes, all servers private and fresh for each run."""
