"""Settings: every knob of an installation, from `TOWPATH_*` variables or the command line of `towpath up`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """All settings. Each may be given as an environment variable with the prefix `TOWPATH_`."""

    model_config = SettingsConfigDict(env_prefix="TOWPATH_", frozen=True)

    home: Path = Field(
        Path("~/.towpath"), description="Folder of the database, logs, mirrors, hosted repositories and keys."
    )
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite at HOME/towpath.db.")
    redis_url: str = Field("", description="Redis URL; empty: `towpath up` runs its own redis-server.")
    bind: str = Field("127.0.0.1:8000", description="Address and port that the web process listens on.")
    public_url: str = Field("", description="URL under which people reach Towpath; empty: http://BIND.")
    secure_cookies: bool = Field(False, description="Mark cookies Secure; also on by itself when PUBLIC_URL is https.")
    trusted_proxies: int = Field(
        0, ge=0, le=5, description="Number of reverse proxies in front whose X-Forwarded headers are believed."
    )
    workers: int = Field(2, ge=1, le=64, description="Worker processes that `towpath up` starts.")
    web_threads: int = Field(
        160, ge=4, le=2000, description="Threads of the web process; each open page holds one for its events."
    )
    secret_key: str = Field(
        "",
        description="32 bytes in hex; encrypts stored secrets. Empty: HOME/secret.key, made on first start.",
    )
    blobs_url: str = Field("", description="fsspec URL of the log store; empty: HOME/blobs.")
    git_internal_hosts: frozenset[str] = Field(
        frozenset(), description="JSON list of host names that may resolve to private addresses in clone URLs."
    )
    git_ca_file: str = Field("", description="CA bundle for git over https to internal forges.")
    docker_host: str = Field("", description="Engine of this worker; empty: DOCKER_HOST or the local socket.")
    sandbox_runtime: str = Field("", description="OCI runtime for stages, such as runsc; empty: the engine's own.")
    proxy_image: str = Field("haproxy:2.8", description="HAProxy image put before deployed containers.")
    lease_seconds: float = Field(6.0, gt=1, le=600, description="How long a worker's claim lasts without renewal.")
    build_timeout: float = Field(1800.0, gt=0, description="Longest build, in seconds.")
    registry: str = Field(
        "", description="Registry and prefix, such as registry.example:5000/towpath, that builds push to; empty: none."
    )
    log_limit: int = Field(4 << 30, gt=0, description="Largest output of one attempt at a stage, in bytes.")
    shadow_audit: int = Field(
        50, ge=0, description="One in so many reused verdicts is earned again to see whether it stands; 0: none."
    )
    artifact_limit: int = Field(1 << 30, gt=0, description="Largest sum of the artifacts of one attempt, in bytes.")
    artifact_days: float = Field(30, gt=0, description="Days that artifacts are kept.")
    snapshot_limit: int = Field(512 << 20, gt=0, description="Largest kept files of a failed stage, in bytes.")
    snapshot_hours: float = Field(24, gt=0, description="Hours that the files of a failed stage are kept.")
    images_limit: int = Field(
        20 << 30, gt=0, description="Bytes of the engine's disk that images made by Towpath may take."
    )
    keep_releases: int = Field(
        50, ge=1, description="So many newest releases of a project keep their images, besides those in use."
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least level logged.")

    @property
    def folder(self) -> Path:
        """HOME, absolute."""
        return self.home.expanduser().resolve()

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.folder / 'towpath.db'}"

    @property
    def redis(self) -> str:
        """The Redis URL in force: the given one, or the socket of the server that `up` runs."""
        return self.redis_url or f"unix://{self.folder / 'redis.sock'}"

    @property
    def blobs(self) -> str:
        """The fsspec URL of the log store in force."""
        return self.blobs_url or f"file://{self.folder / 'blobs'}"

    @property
    def url(self) -> str:
        """Public base URL without a trailing slash."""
        return (self.public_url or f"http://{self.bind}").rstrip("/")

    @property
    def cookies_are_secure(self) -> bool:
        """Whether session cookies carry the Secure attribute."""
        return self.secure_cookies or self.url.startswith("https://")
