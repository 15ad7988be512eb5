"""Ray's settings, which it reads from the environment when it is imported."""

import os
import secrets

_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # the user's relative paths stay what they were
    # Ray starts a process for each CPU beforehand; a trial's has begun by then.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # also how soon a worker's report is seen
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # we write the rows
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep here, not only Tune's loop
}

# Joining fails in seconds if no cluster answers; Ray would retry for a quarter of an hour.
_JOINING = {
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_gcs_rpc_server_connect_timeout_s": "3",
    "RAY_py_gcs_connect_timeout_s": "3",
}


def set_environment(local: bool) -> None:
    """Set the variables that Ray reads; call it before `import ray`. Those that the user set stay.

    Args:
        local: Whether to start a local Ray. It then listens on loopback only, and uses token
            authentication with a token that lives as long as it does; by default Ray would write
            one into the home folder. A cluster is joined with the user's own settings.
    """
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)
    if not local:
        for name, value in _JOINING.items():
            os.environ.setdefault(name, value)
    else:
        # Without it Ray's servers listen on every interface, whatever address `ray.init` is given.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
