"""From settings to the parts of a process; the only place that picks adapters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cd.config import Settings
from cd.identity.vault import Vault, load_key
from cd.pipeline.auditing import Auditor
from cd.pipeline.build import BuildRunner
from cd.pipeline.builder import Builder
from cd.pipeline.collecting import Collector
from cd.pipeline.collection import Disk
from cd.pipeline.logs import LogStore
from cd.pipeline.registry import Registry
from cd.pipeline.repositories import Repositories
from cd.pipeline.reuse import Sampled
from cd.pipeline.stages import Keeping, StageRunner
from cd.promote import releases, retention
from cd.promote.deployments import Deployer
from cd.promote.targets import Targets
from cd.queue.doorbell import Doorbell
from cd.sandbox.docker_engine import DockerSandbox
from cd.sandbox.stock import Stock
from cd.store import facts
from cd.store.database import Database


@dataclass(frozen=True)
class Services:
    """All that a process works with. Connections open at first use."""

    settings: Settings
    database: Database
    redis: redis.Redis
    doorbell: Doorbell
    logs: LogStore
    vault: Vault
    sandbox: DockerSandbox
    repositories: Repositories
    builder: Builder
    targets: Targets

    def after_fork(self) -> None:
        """In a forked child: open connections of its own."""
        self.database.after_fork()
        self.sandbox.after_fork()
        self.redis.connection_pool.reset()

    def instance(self) -> str:
        """Tells this installation's containers from another's on the same engine."""
        with self.database.read() as session:
            return facts.instance(session)

    def builds(self) -> BuildRunner:
        """What executes "build" tasks."""
        return BuildRunner(
            database=self.database,
            repositories=self.repositories,
            builder=self.builder,
            logs=self.logs,
            vault=self.vault,
            registry=Registry(self.settings.registry, self.settings.docker_host),
            ended=self._run_ended(),
        )

    def stages(self) -> StageRunner:
        """What executes "stage" tasks."""
        told = self.settings
        return StageRunner(
            self.database,
            self.sandbox,
            self.logs,
            self.vault,
            Collector(self.sandbox, told.blobs, told.artifact_limit, told.artifact_days),
            self._run_ended(),
            self.instance(),
            Keeping(told.log_limit, told.snapshot_limit, told.snapshot_hours),
        )

    def auditor(self) -> Auditor:
        """What executes "audit" tasks."""
        return Auditor(self.stages())

    def _run_ended(self) -> Sampled:
        return Sampled(releases.run_ended, self.settings.shadow_audit)

    def disk(self) -> Disk:
        """What of Towpath's takes room on this process's engine."""
        told = self.settings
        held = partial(retention.held, keep=told.keep_releases)
        stock = Stock(self.sandbox.api)
        return Disk(self.database, stock, told.images_limit, held, retention.retire, told.registry)

    def deployer(self) -> Deployer:
        """What executes "deploy" tasks."""
        return Deployer(self.database, self.targets, self.instance())


def build(settings: Settings) -> Services:
    """Wire everything. Raises UserError for settings that can't be."""
    settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A second try at once, for a connection that went stale; the client's own default waits up to 8 s, and nobody
    # may wait that long for a doorbell.
    connection = redis.Redis.from_url(settings.redis, socket_connect_timeout=2, retry=Retry(NoBackoff(), 1))
    doorbell = Doorbell(connection)
    database = Database(settings.database, doorbell)
    return Services(
        settings=settings,
        database=database,
        redis=connection,
        doorbell=doorbell,
        logs=LogStore(database, connection, settings.blobs),
        vault=Vault(load_key(settings)),
        sandbox=DockerSandbox(settings.docker_host, settings.sandbox_runtime),
        repositories=Repositories(
            settings.folder,
            internal_hosts=settings.git_internal_hosts,
            ca_file=settings.git_ca_file,
            hooks_url=f"{settings.url}/hooks",
        ),
        builder=Builder(settings.docker_host, timeout=settings.build_timeout),
        targets=Targets(settings.docker_host, settings.proxy_image),
    )
