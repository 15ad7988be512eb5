"""Object stores: opened so that an outage is waited for, and asked whether they answer."""

import functools
import os
import re
from urllib.parse import parse_qsl, unquote, urlsplit

from pyarrow import fs

from ssl_runner.errors import InputError, did_you_mean

RETRIES = 11
"""How often a request is retried, unless AWS_MAX_ATTEMPTS says otherwise. Each pause is twice the one
before, from 25 ms on: 51 seconds in all."""

_CONNECT_SECONDS = 5.0
"""Seconds that a connection may take."""

_SILENT_SECONDS = 15.0
"""Seconds without a byte after which a request has failed."""

_IMPATIENT_SECONDS = 4.0
"""The same where somebody waits to be told that nothing answers."""

_TEXTS = ("region", "scheme", "endpoint_override", "tls_ca_file_path")
_SWITCHES = ("force_virtual_addressing",)

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def join(location: str, *names: str) -> str:
    """The location of something in a folder: the names come before a URI's options, `s3://b/r?region=x`."""
    folder, mark, options = location.partition("?") if "://" in location else (location, "", "")
    return "/".join((folder.rstrip("/"), *names)) + mark + options


def above(location: str) -> tuple[str, str]:
    """The folder of a file, and the file's name: a URI's options stay with the folder."""
    path, mark, options = location.partition("?") if "://" in location else (location, "", "")
    folder, _, name = path.rpartition("/")
    return folder + mark + options, name


def open_s3(location: str, *, impatient: bool = False) -> tuple[fs.FileSystem, str]:
    """S3's file system and the path in it; nothing is asked of the store but, without a region and an
    endpoint, where the bucket is.

    Args:
        location: `s3://bucket/results`, with options behind a question mark: `region`, `scheme`,
            `endpoint_override`, `tls_ca_file_path`, `force_virtual_addressing`.
        impatient: Whether it fails after seconds; else it waits for a minute of outage.

    Raises:
        InputError: If the bucket is missing in it, or an option is unknown.
    """
    parts = urlsplit(location)
    bucket = parts.netloc.rpartition("@")[2]
    if not bucket:
        raise InputError(
            f"the location must be a folder or a URI such as s3://bucket/results, got {location!r}. "
            "Name the bucket."
        )
    options: dict[str, str | bool] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in (*_TEXTS, *_SWITCHES):
            hint = did_you_mean(name, (*_TEXTS, *_SWITCHES))
            raise InputError(f"an option of {location!r} must be one that S3 has, got {name!r}. {hint}")
        options[name] = value if name in _TEXTS else value.lower() in ("1", "true", "yes")
    if (keys := parts.netloc.rpartition("@")[0]) and ":" in keys:
        access, _, secret = keys.partition(":")
        options |= {"access_key": unquote(access), "secret_key": unquote(secret)}
    # What it is made of: another environment is another file system.
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    path = f"{bucket}{parts.path}".rstrip("/")
    return _s3(bucket, tuple(sorted(options.items())), environment, impatient), path


@functools.lru_cache(maxsize=16)  # its connections are kept
def _s3(
    bucket: str,
    options: tuple[tuple[str, str | bool], ...],
    environment: tuple[tuple[str, str], ...],
    impatient: bool,
) -> fs.FileSystem:
    given: dict[str, str | bool | None] = {**dict(options)}
    has = dict(environment)
    if endpoint := next((has[name] for name in _ENDPOINTS if has.get(name)), None):
        given.setdefault("endpoint_override", endpoint)
    if not {"region", "endpoint_override"} & given.keys():
        given["region"] = _region_of(bucket)
    retries = 2 if impatient else _retries(has.get("AWS_MAX_ATTEMPTS", ""))
    return fs.S3FileSystem(
        **given,
        connect_timeout=_IMPATIENT_SECONDS if impatient else _CONNECT_SECONDS,
        request_timeout=_IMPATIENT_SECONDS if impatient else _SILENT_SECONDS,
        retry_strategy=fs.AwsDefaultS3RetryStrategy(max_attempts=retries),
        allow_delayed_open=True,  # a small file is one request, not three
    )


def _retries(attempts: str) -> int:
    return max(int(attempts) - 1, 0) if attempts.isdecimal() else RETRIES


@functools.lru_cache
def _region_of(bucket: str) -> str | None:
    """Where a bucket of AWS's is; None if that can't be had: the first request then says why."""
    try:
        region: str = fs.resolve_s3_region(bucket)
    except OSError:
        return None
    return region


def check_reachable(location: str) -> None:
    """Ask a cloud for a folder, once and impatiently. Of a local folder nothing is asked.

    Raises:
        InputError: If it does not answer within seconds, refuses, or has no such bucket.
    """
    if not location.startswith("s3://"):
        return
    filesystem, path = open_s3(location, impatient=True)
    bucket = path.partition("/")[0]
    try:
        found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        is_there = found or filesystem.get_file_info(bucket).type != fs.FileType.NotFound
    except OSError as error:
        raise InputError(f"{location}: can't be reached ({_reason(error)}). {_fix(error)}") from None
    if not is_there:
        raise InputError(
            f"{location}: the bucket must exist, got {bucket!r}, which is not there. Check its name "
            "and AWS_ENDPOINT_URL; no bucket is created here."
        )


def said_of(error: OSError) -> str | None:
    """What to tell the user of an object store that fails, in a line; None if it is another error."""
    if not re.search(r"AWS Error|google::cloud", str(error)):
        return None
    return f"the results' store does not answer as it should ({_reason(error)}). {_fix(error)}"


def _reason(error: OSError) -> str:
    """pyarrow's error, shortened: `ListObjectsV2: SIGNATURE_DOES_NOT_MATCH, …`."""
    text = " ".join(str(error).split())
    found = re.search(r"AWS Error (.*?) during (\w+) operation: (.*)", text)
    if found is None:
        return text[:200]
    said = found[3].rpartition("Details: ")[2]  # of what curl says, the part that names the host
    said = re.sub(r" ?\(Request ID: .*?\)| after \d+ ms.*|curlCode: \d+, ", "", said)
    return f"{found[2]}: {found[1]}, {said[:150].rstrip('. ')}"


def _fix(error: OSError) -> str:
    """What the user may do about it."""
    text = str(error)
    if "NETWORK_CONNECTION" in text:
        return "Is the network up, and the endpoint right (AWS_ENDPOINT_URL)?"
    if re.search(r"configured region|REGION|status 301|AuthorizationHeaderMalformed", text):
        return "Set AWS_REGION to the bucket's region."
    if re.search(r"ACCESS_DENIED|ACCESS_KEY|SIGNATURE|TOKEN|status 403|Forbidden", text):
        return (
            "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and that they may use "
            "this bucket."
        )
    return "Check the bucket's name, the keys and the endpoint, and try again."
