"""Success rates in LIBERO: `lightvla eval` and `lightvla compare`."""
