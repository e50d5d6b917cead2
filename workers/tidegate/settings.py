"""Settings: ``config/tidegate.toml`` (or the file that TIDEGATE_CONFIG names), then TIDEGATE_* variables, then arguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from tidegate.errors import ConfigurationError

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """Every setting, its unit in its name, its default, and what it is for."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", extra="forbid", frozen=True, validate_default=True)

    url: SecretStr | None = Field(None, description="redis://… of the ledger; none: an embedded Valkey for this user")
    broker_url: SecretStr | None = Field(None, description="Celery broker for tickets; none: the ledger's server")
    signing_key: SecretStr | None = Field(
        None,
        description="producers sign jobs with it, workers refuse others; several, the first signs: separated by commas",
    )
    queue: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field("tidegate", description="default queue")
    state_dir: Path | None = Field(
        None, description="where the embedded server and journals live; none: the user's state folder"
    )

    batch_size: int | None = Field(None, gt=0, le=100_000, description="items a batch; none: adapts")
    target_batch_s: Seconds = Field(1.0, description="work that an adaptive batch aims at")
    target_batch_bytes: Positive = Field(256 << 10, description="bytes that an adaptive batch aims at")
    max_batch_bytes: Positive = Field(8 << 20, description="a batch larger than this is refused")
    max_item_bytes: Positive = Field(4 << 20, description="a result larger than this fails its item")
    max_pending_bytes: Positive = Field(64 << 20, description="high-water mark of one job's payloads in the ledger")
    max_pending_batches: Positive = Field(4096, description="high-water mark of one job's batches in the ledger")
    silent_producer_s: Seconds = Field(
        300.0, description="a producer that is silent for longer is dead: its job ends with what it has"
    )
    silent_resumable_s: Seconds = Field(
        86_400.0, description="the same for submissions with an id, which may be resumed"
    )
    job_ttl_s: Seconds = Field(86_400.0, description="how long an ended job is kept")

    processes: Positive = Field(1, description="worker processes under one supervisor")
    slots: Positive = Field(4, description="batches at work at once in one process")
    lease_s: Seconds = Field(15.0, description="time after which a silent holder loses its batch")
    slice_s: Seconds = Field(0.1, description="time for which a ticket stays with one worker")
    partial_commit_s: Seconds = Field(0.25, description="how often finished items of a long batch are committed")
    sweep_s: Seconds = Field(1.0, description="time between sweeps")
    grace_s: Seconds = Field(20.0, description="time that a stopping worker gives to running items")
    watchdog_s: Seconds = Field(
        30.0, description="time without a claim, while batches wait, after which a process is replaced"
    )
    memory_soft: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="share of the memory limit at which claiming stops"
    )
    memory_hard: Annotated[float, Field(gt=0, le=1)] = Field(0.95, description="share at which a process is replaced")
    memory_limit_bytes: int | None = Field(
        None, gt=0, description="memory limit of a process; none: the cgroup's or machine's share"
    )

    telemetry_s: Seconds = Field(1.0, description="time between telemetry records of a process")
    telemetry_keep: Positive = Field(20_000, description="telemetry records kept in the stream")
    collector_host: str = Field("127.0.0.1", description="address that the collector listens on")
    collector_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        9464, description="port of the collector; 0: any free one"
    )
    collector_token: SecretStr | None = Field(
        None, description="who reads the collector must know it; none: loopback only"
    )
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = Field("INFO", description="log level")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get("TIDEGATE_CONFIG")
        file = (TomlConfigSettingsSource(settings_cls, Path(path)),) if path else ()
        return (init_settings, env_settings, *file)


def load_settings(**overrides: Any) -> Settings:
    """Settings from file, environment and arguments (``None`` arguments are left out).

    >>> load_settings(processes=0)
    Traceback (most recent call last):
    ...
    tidegate.errors.ConfigurationError: processes: Input should be greater than 0 (it is 0): ...
    """
    path = os.environ.get("TIDEGATE_CONFIG")
    if path and not Path(path).is_file():
        raise ConfigurationError(f"TIDEGATE_CONFIG names {path}, which is not a file", remedy="correct or unset it")
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        secret = name in ("url", "broker_url", "collector_token", "signing_key")
        shown = "" if secret else f" (it is {first.get('input')!r})"
        raise ConfigurationError(
            f"{name}: {first['msg']}{shown}",
            remedy=f"correct it in the file that TIDEGATE_CONFIG names, in TIDEGATE_{name.upper()}, or in the options",
        ) from None
    except ValueError as error:  # a TOML file that does not parse
        raise ConfigurationError(f"{path}: {error}", remedy="correct the file") from None
