"""The ``storage_options`` of ``s3://`` URLs, and the client that they and the environment make.

The options are those of s3fs, so that one dictionary serves pandas, fsspec and this library. Where
they leave something out, these follow, in this order:

1. fsspec's configuration, such as ``FSSPEC_S3_PROFILE``;
2. TensorFlow's variables, which TensorBoard reads too: ``S3_ENDPOINT``, ``S3_REGION``,
   ``S3_USE_HTTPS``, ``S3_VERIFY_SSL`` and ``S3_CA_FILE``;
3. botocore's usual sources: the environment, the shared configuration, the role of a container or
   instance. Credentials are refreshed when they expire.

Writers, readers and commands all get their client here.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError, MissingDependencyError
from sm_tblog.storage.urls import check_bucket, without_password

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "check",
    "identity",
    "make_client",
    "make_session",
    "merged",
    "operation_parameters",
    "public",
]

OPTIONS = {
    "anon": "send no credentials",
    "key": "the access key's id",
    "secret": "the secret access key",
    "token": "the session token",
    "username": "an alias of key",
    "password": "an alias of secret",
    "profile": "a profile of the shared configuration; one with role_arn assumes the role",
    "endpoint_url": "the server's URL, if it is not AWS",
    "region_name": "the bucket's region",
    "use_ssl": "False for plain HTTP",
    "requester_pays": "True if the uploader pays for requests",
    "client_kwargs": "passed to botocore's create_client",
    "config_kwargs": "passed to botocore.config.Config",
    "s3_additional_kwargs": "passed to every request that accepts them: ServerSideEncryption, "
    "SSEKMSKeyId, ACL, Tagging, StorageClass, …",
}

TUNING = frozenset(
    {
        *("asynchronous", "batch_size", "cache_regions", "default_block_size"),
        *("default_cache_type", "default_fill_cache", "fixed_upload_size", "listings_expiry_time"),
        *("local_expiry_check", "loop", "max_concurrency", "max_paths", "skip_instance_cache"),
        *("use_listings_cache", "version_aware"),
    }
)
"""Options that tune how s3fs caches and schedules. They are accepted and have no effect."""

OF_WRITERS = frozenset({"spool", "stretch"})
"""Options of a writer's store, which readers accept and do not need."""

CONNECT_TIMEOUT = 5
"""Seconds to establish a connection."""

READ_TIMEOUT = 20
"""Seconds without a byte of the reply."""

CONNECTIONS = 32
"""Connections that stay open. Threads that read many files share one client."""

ENVIRONMENT = "environment"
"""The name of the note that holds the variables of the process that logged."""

_SESSION_VARIABLES = {
    "AWS_CONFIG_FILE": "config_file",
    "AWS_SHARED_CREDENTIALS_FILE": "credentials_file",
    "AWS_CA_BUNDLE": "ca_bundle",
    "AWS_DEFAULT_REGION": "region",
    "AWS_PROFILE": "profile",  # after the files
    "AWS_DEFAULT_PROFILE": "profile",
}
"""Botocore's names of the environment variables that a later upload may need."""

_FILES = (
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
    *("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "S3_CA_FILE"),
)

_RECORDED = (
    *_SESSION_VARIABLES,
    *("AWS_REGION", "S3_REGION", "S3_USE_HTTPS", "S3_VERIFY_SSL", "S3_CA_FILE"),
    "REQUESTS_CA_BUNDLE",
)
"""Environment variables that a later upload may need. None holds a secret."""

_PUBLIC = ("anon", "profile", "region_name", "use_ssl", "requester_pays")
_PUBLIC_OF_CLIENT = ("api_version", "verify")
_PUBLIC_OF_CONFIG = (
    *("client_cert", "proxies_config", "s3", "signature_version"),
    *("use_dualstack_endpoint", "use_fips_endpoint"),
)
"""Options that contain no secrets."""

_FALSE = ("0", "f", "false", "n", "no", "off")


def check(url: str, options: Mapping[str, Any]) -> None:
    """Raise an error if a package is missing, an option is unknown, or the URL has no bucket.

    Raises:
        MissingDependencyError: botocore is not installed.
        InvalidValueError: an option is unknown, or the URL contains no bucket name.
    """
    if find_spec("botocore") is None:
        message = f"{url}: botocore is needed for S3; pip install 'sm-tblog[s3]'"
        raise MissingDependencyError(message)
    if unknown := set(options) - set(OPTIONS) - TUNING:
        message = (
            f"unknown storage_options for {url}: {', '.join(sorted(unknown))}; "
            f"known options: {', '.join(OPTIONS)}, spool"
        )
        raise InvalidValueError(message)
    check_bucket(url)
    _with_defaults(options)


def merged(options: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return options overridden by others; dictionaries in them are merged."""
    both = {**options, **more}
    for name in set(options) & set(more):
        if isinstance(options[name], dict) and isinstance(more[name], dict):
            both[name] = {**options[name], **more[name]}
    return both


def public(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a later upload needs, without secrets and ready for JSON."""
    options = _with_defaults(options)
    of_client = options.get("client_kwargs") or {}
    given = {**options, **{name: of_client[name] for name in _PUBLIC if name in of_client}}
    kept = {name: given[name] for name in _PUBLIC if given.get(name) is not None}
    for group, names in (
        ("client_kwargs", _PUBLIC_OF_CLIENT),
        ("config_kwargs", _PUBLIC_OF_CONFIG),
    ):
        more = options.get(group) or {}
        if found := {name: more[name] for name in names if name in more}:
            kept[group] = found
    signature = kept.get("config_kwargs", {}).get("signature_version")
    if signature is not None and not isinstance(signature, str):  # botocore.UNSIGNED
        del kept["config_kwargs"]["signature_version"]
        kept["anon"] = True
    verify = kept.get("client_kwargs", {}).get("verify")
    if verify and not isinstance(verify, bool):
        kept["client_kwargs"]["verify"] = _absolute(verify)
    if parameters := options.get("s3_additional_kwargs"):
        kept["s3_additional_kwargs"] = {
            name: value for name, value in parameters.items() if "SSECustomer" not in name
        }
    environment = {name: os.environ[name] for name in _RECORDED if os.environ.get(name)}
    environment |= {name: _absolute(environment[name]) for name in _FILES if name in environment}
    if environment:
        kept[ENVIRONMENT] = environment
    endpoint = _endpoint(options)
    ready: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return {**ready, "endpoint_url": endpoint and without_password(endpoint)}


def identity(options: Mapping[str, Any]) -> str:
    """Return the key of a client: the options and the environment that botocore reads."""
    known = (name for name in sorted(os.environ) if name.startswith(("AWS_", "S3_")))
    return repr(
        (sorted(_with_defaults(options).items()), [(name, os.environ.get(name)) for name in known])
    )


def make_session(options: Mapping[str, Any]) -> Any:
    """Return a botocore session, which finds credentials and never asks for any.

    The variables that the options record apply where the environment has none: a profile and files
    only if they exist on this machine, and a profile not before the environment's own credentials.
    """
    import botocore.session

    options = _with_defaults(options)
    session = botocore.session.Session(profile=options.get("profile"))
    recorded = options.get(ENVIRONMENT) or {}
    for name, variable in _SESSION_VARIABLES.items():
        value = recorded.get(name)
        if not value or os.environ.get(name) or (name in _FILES and not Path(value).exists()):
            continue
        may_apply = variable != "profile" or (
            not _names_credentials(options) and value in session.available_profiles
        )
        if may_apply:
            session.set_config_variable(variable, value)
    _refuse_prompts(session, options.get("region_name") or _region(session, options))
    return session


def _names_credentials(options: Mapping[str, Any]) -> bool:
    names = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID")
    given = ("anon", "key", "username", "profile")
    return any(map(os.environ.get, names)) or any(map(options.get, given))


def _refuse_prompts(session: Any, region: str) -> None:
    """Make an MFA code an error: a thread of ours must not wait at the user's terminal."""
    from botocore.credentials import create_credential_resolver
    from botocore.exceptions import RefreshWithMFAUnsupportedError

    def refuse(prompt: str) -> str:
        raise RefreshWithMFAUnsupportedError from RuntimeError(prompt)

    resolver = create_credential_resolver(session, region_name=region)
    for provider in resolver.providers:
        if hasattr(provider, "_prompter"):  # of a role; botocore offers no public way
            provider._prompter = refuse  # noqa: SLF001
    session.register_component("credential_provider", resolver)


def make_client(options: Mapping[str, Any]) -> Any:
    """Return a botocore client for S3.

    Raises:
        InvalidValueError: ``s3_additional_kwargs`` has an unknown parameter, or there is no file
            with the certificates.
        Exception: botocore's errors.
    """
    import botocore
    from botocore.config import Config

    options = _with_defaults(options)
    session = make_session(options)
    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        # Few, because the queue retries and reports it.
        "retries": {"mode": "standard", "total_max_attempts": 2},
        "max_pool_connections": CONNECTIONS,
        "tcp_keepalive": True,
    }
    # Not every server supports checksums as trailers; all support Content-MD5.
    if "request_checksum_calculation" in Config.OPTION_DEFAULTS:
        settings["request_checksum_calculation"] = "when_required"
        settings["response_checksum_validation"] = "when_required"
    if _flag(options.get("anon"), default=False):
        settings["signature_version"] = botocore.UNSIGNED
    given_settings = (options.get("config_kwargs") or {}).items()
    # Copies, because botocore changes them, and ``identity`` is made from the options.
    settings.update({k: dict(v) if isinstance(v, dict) else v for k, v in given_settings})
    arguments: dict[str, Any] = {
        "aws_access_key_id": options.get("key") or options.get("username"),
        "aws_secret_access_key": options.get("secret") or options.get("password"),
        "aws_session_token": options.get("token"),
        "region_name": options.get("region_name") or _region(session, options),
        "use_ssl": _uses_ssl(options),
        "verify": _verify(options),
    }
    arguments.update(options.get("client_kwargs") or {})
    arguments["endpoint_url"] = _endpoint(options)
    if arguments["verify"] is None:
        configured = session.get_config_variable("ca_bundle")
        arguments["verify"] = configured or _variable(options, "REQUESTS_CA_BUNDLE")
    _check_certificates(arguments["verify"])
    config = Config(**settings)
    if given := arguments.pop("config", None):
        config = config.merge(given)
    client = session.create_client("s3", config=config, **arguments)
    known = client.meta.service_model.operation_model("PutObject").input_shape.members
    if unknown := set(options.get("s3_additional_kwargs") or {}) - set(known):
        message = (
            f"s3_additional_kwargs: S3's PutObject has no parameter {', '.join(sorted(unknown))}"
        )
        raise InvalidValueError(message)
    return client


def _with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, with those of fsspec's configuration where none is given.

    Only if there is any is fsspec imported, and first when the options are checked: it cannot be
    imported while the interpreter shuts down.
    """
    folder = os.environ.get("FSSPEC_CONFIG_DIR") or "~/.config/fsspec"
    named = any(name.startswith("FSSPEC_S3") for name in list(os.environ))
    if not named and "fsspec.config" not in sys.modules and not Path(_expanded(folder)).is_dir():
        return dict(options)
    from fsspec.config import conf

    defaults = {**conf.get("s3", {}), **conf.get("s3a", {})}
    return {**{name: defaults[name] for name in defaults if name in OPTIONS}, **options}


def _endpoint(options: Mapping[str, Any]) -> str | None:
    """Return the server's URL, None for AWS. TensorBoard reads ``S3_ENDPOINT``."""
    given = (options.get("client_kwargs") or {}).get("endpoint_url") or options.get("endpoint_url")
    names = ["S3_ENDPOINT"]
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() != "true":
        names += ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
    found = given or next((os.environ[name] for name in names if os.environ.get(name)), None)
    if found is None or "://" in found:
        return found
    return f"{'https' if _uses_ssl(options) else 'http'}://{found}"


def _uses_ssl(options: Mapping[str, Any]) -> bool:
    given = (options.get("client_kwargs") or {}).get("use_ssl", options.get("use_ssl"))
    return _flag(_variable(options, "S3_USE_HTTPS") if given is None else given, default=True)


def _verify(options: Mapping[str, Any]) -> str | bool | None:
    """Return False, the file of certificates to trust, or None to leave it to botocore."""
    if not _flag(_variable(options, "S3_VERIFY_SSL"), default=True):
        return False
    if os.environ.get("AWS_CA_BUNDLE"):
        return None
    return _variable(options, "S3_CA_FILE")


def _check_certificates(path: Any) -> None:
    if isinstance(path, str) and not Path(path).exists():
        message = f"there is no file of certificates {path!r}; correct AWS_CA_BUNDLE or verify"
        raise InvalidValueError(message)


def _region(session: Any, options: Mapping[str, Any]) -> str:
    """Return the configured region; a server other than AWS accepts any."""
    named = _variable(options, "AWS_REGION") or _variable(options, "S3_REGION")
    return str(named or session.get_config_variable("region") or "us-east-1")


def _variable(options: Mapping[str, Any], name: str) -> str | None:
    """Return an environment variable, of this process or of the one that logged."""
    found = os.environ.get(name)
    if not found:
        found = (options.get(ENVIRONMENT) or {}).get(name)
        if found and name in _FILES and not Path(found).exists():
            return None
    return found or None


def _flag(value: Any, *, default: bool) -> bool:
    """Return a flag that may come from the environment, as text."""
    if value is None or value == "":
        return default
    return value.strip().lower() not in _FALSE if isinstance(value, str) else bool(value)


def _absolute(path: Any) -> str:
    return os.path.abspath(_expanded(path))  # noqa: PTH100 - a link stays one


def _expanded(path: Any) -> str:
    return str(os.path.expanduser(path))  # noqa: PTH111 - there may be no home directory


def operation_parameters(client: Any, operation: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return an operation's parameters from ``s3_additional_kwargs`` and ``requester_pays``."""
    options = _with_defaults(options)
    wanted = dict(options.get("s3_additional_kwargs") or {})
    if _flag(options.get("requester_pays"), default=False):
        wanted["RequestPayer"] = "requester"
    if operation == "UploadPartCopy":  # the source was written with the same key
        wanted |= {f"CopySource{k}": v for k, v in wanted.items() if k.startswith("SSECustomer")}
    known = client.meta.service_model.operation_model(operation).input_shape.members
    return {key: value for key, value in wanted.items() if key in known}
